//! Traces: what a collector of OpenTelemetry gets of a request, and what it does not.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Said;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::json;

use crate::pool::{KEYS, NAMES, World, refuse};
use crate::support::answers::until;
use crate::support::hook::Hook;
use crate::support::node::{MODEL, ask, ask_streaming};

/// All spans that arrived, and what the node says of itself.
fn spans(hook: &Hook) -> Vec<Span> {
    let mut spans = Vec::new();
    for posted in hook.posted() {
        assert_eq!((posted.path.as_str(), posted.header("content-type")), ("/v1/traces", "application/x-protobuf"));
        let message = ExportTraceServiceRequest::decode(posted.body.clone()).expect("a message of OTLP");
        for resource in message.resource_spans {
            let said = resource.resource.expect("a resource").attributes;
            let texts: BTreeMap<String, String> = said.into_iter().map(|pair| (pair.key, text(pair.value))).collect();
            assert_eq!((texts["service.name"].as_str(), texts.len()), ("a slot", 3), "{texts:?}");
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    spans
}

fn text(value: Option<opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Said::StringValue(text)) => text,
        Some(Said::IntValue(number)) => number.to_string(),
        Some(Said::BoolValue(flag)) => flag.to_string(),
        other => panic!("{other:?}"),
    }
}

fn said(span: &Span) -> BTreeMap<String, String> {
    span.attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.clone()))).collect()
}

/// The spans of the request that ended last but so many, its own first, then its steps by when they began.
fn request(all: &[Span], back: usize) -> (Span, Vec<Span>) {
    let roots: Vec<&Span> = all.iter().filter(|span| span.parent_span_id.is_empty()).collect();
    let root = roots[roots.len() - 1 - back].clone();
    let of_it = |span: &&Span| span.trace_id == root.trace_id && !span.parent_span_id.is_empty();
    let mut steps: Vec<Span> = all.iter().filter(of_it).cloned().collect();
    steps.sort_by_key(|span| span.start_time_unix_nano);
    (root, steps)
}

fn names(steps: &[Span]) -> Vec<&str> {
    steps.iter().map(|span| span.name.as_str()).collect()
}

async fn arrived(hook: &Hook, requests: usize) -> Vec<Span> {
    until("the collector has it", async || {
        spans(hook).iter().filter(|span| span.parent_span_id.is_empty()).count() >= requests
    })
    .await;
    spans(hook)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_with_a_step_for_each_thing_it_waited_for() {
    let hook = Hook::start().await;
    let more = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*hook.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-key"),
        ("OTEL_SERVICE_NAME", "a slot"),
        ("METRICS_TOKEN", "a-metrics-token-canary"),
    ];
    let world = World::new(&[json!({}), json!({})], &more).await;
    // A key, and an upstream that fails before another answers.
    world.upstreams[0].next(refuse(500));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let asked = world.node.chat(&ask("prompt-canary")).bearer_auth(&world.key);
    let asked = asked.header("traceparent", parent).header("tracestate", "state-canary=1").send().await.unwrap();
    let id = asked.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(asked.status(), 200);
    let all = arrived(&hook, 1).await;
    let (root, steps) = request(&all, 0);
    assert_eq!((root.name.as_str(), root.kind), (&*format!("chat {MODEL}"), i32::from(SpanKind::Server)));
    assert_eq!(names(&steps), ["redeem", "hold", "upstream", "upstream", "settle"]);
    let of = said(&root);
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", MODEL),
        ("gen_ai.response.model", MODEL),
        ("gen_ai.usage.input_tokens", "100"),
        ("gen_ai.usage.output_tokens", "50"),
        ("coinslot.charged_msat", "2000"),
        ("coinslot.payment.method", "key"),
        ("coinslot.request.id", &id),
        ("coinslot.stream", "false"),
    ] {
        assert_eq!(of[name], value, "{of:?}");
    }
    assert_eq!((root.links.len(), root.links[0].trace_id[0], root.links[0].span_id[7]), (1, 0x4b, 0xb7));
    assert_ne!(root.trace_id, root.links[0].trace_id, "a stranger does not say what it is part of");
    let (failed, answered) = (said(&steps[2]), said(&steps[3]));
    assert_eq!((failed["coinslot.upstream"].as_str(), failed["error.type"].as_str()), (NAMES[0], "refused"));
    assert_eq!(failed["http.response.status_code"], "500");
    assert_eq!((answered["coinslot.upstream"].as_str(), answered.get("error.type")), (NAMES[1], None));
    assert_eq!((steps[2].status.as_ref().unwrap().code, &steps[3].status), (2, &None));
    for step in &steps {
        assert!(step.parent_span_id == root.span_id && step.span_id.len() == 8 && step.trace_id.len() == 16);
        assert!(step.start_time_unix_nano <= step.end_time_unix_nano);
        assert!(root.start_time_unix_nano <= step.start_time_unix_nano);
        assert!(step.end_time_unix_nano <= root.end_time_unix_nano);
    }

    // A token that rides along, streamed, gets change.
    let token = world.purse.send(40).await;
    let reply = world.send_token(&ask_streaming("prompt-canary"), &token).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let all = arrived(&hook, 2).await;
    let (root, steps) = request(&all, 0);
    assert_eq!(names(&steps), ["redeem", "hold", "upstream", "settle", "change"]);
    assert_eq!(
        (said(&root)["coinslot.payment.method"].as_str(), &*said(&root)["coinslot.stream"]),
        ("x_cashu", "true")
    );
    assert!(root.links.is_empty());

    // All upstreams fail: the money goes back. A model that nobody knows is not named.
    let token = world.purse.send(40).await;
    world.upstreams.iter().for_each(|upstream| upstream.next(refuse(500)));
    assert_eq!(world.send_token(&ask("prompt-canary"), &token).await.status, 502);
    let stranger = json!({ "model": "model-canary", "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(world.send(&stranger).await.status, 400);
    let all = arrived(&hook, 4).await;
    let (undone, steps) = request(&all, 1);
    assert_eq!(names(&steps), ["redeem", "hold", "upstream", "upstream", "release", "refund"]);
    assert_eq!((said(&undone)["error.type"].as_str(), undone.status.unwrap().code), ("UpstreamFailed", 2));
    let (unknown, steps) = request(&all, 0);
    assert_eq!((unknown.name.as_str(), steps.len(), &*said(&unknown)["error.type"]), ("chat", 0, "InvalidModel"));

    // Nothing of a client is in it, no key, and no address; and it is told with the operator's header.
    let secrets = [
        "canary-0",
        "prompt-canary",
        "model-canary",
        "state-canary",
        "echo: ",
        "cashuB",
        &world.key,
        KEYS[0],
        KEYS[1],
        "collector-key",
        "127.0.0.1",
        "localhost",
    ];
    for posted in hook.posted() {
        assert_eq!(posted.header("authorization"), "Bearer collector-key");
        let text = String::from_utf8_lossy(&posted.body).into_owned();
        for secret in secrets {
            assert!(!text.contains(secret), "{secret}");
        }
    }
    // And nothing of it goes upstream.
    for seen in world.upstreams.iter().flat_map(|upstream| upstream.seen()) {
        assert!(!seen.headers.keys().any(|name| name.as_str().starts_with("trace")), "{:?}", seen.headers);
    }
    let sent = format!("coinslot_trace_spans_total{{outcome=\"sent\"}} {}", spans(&hook).len());
    until("what the collector has is counted as sent", async || {
        let page = world.node.get("/metrics").bearer_auth("a-metrics-token-canary").send().await.unwrap();
        page.text().await.unwrap().lines().any(|line| line == sent)
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_costs_no_request_and_gets_what_waits_later() {
    let hook = Hook::start().await;
    let more = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*hook.url()), ("OTEL_SERVICE_NAME", "a slot")];
    let world = World::new(&[json!({})], &more).await;
    hook.answer(503);
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    until("it was tried", async || !hook.posted().is_empty()).await;
    hook.answer(200);
    let before = hook.posted().len();
    until("it was tried again", async || hook.posted().len() > before).await;
    // The same spans: what was not taken was kept.
    assert_eq!(hook.posted()[before].body, hook.posted()[0].body);
    // What a stopped node has not sent yet, it sends last.
    assert_eq!(world.send(&ask("hi")).await.status, 200);
    world.finish().await;
    let last = hook.posted().last().cloned().unwrap();
    let message = ExportTraceServiceRequest::decode(last.body).unwrap();
    assert!(!message.resource_spans[0].scope_spans[0].spans.is_empty());
    arrived(&hook, 2).await;
}
