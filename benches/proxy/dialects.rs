//! The other wire formats: that each of them costs about what a chat completion does.

use super::load::{MESSAGES_END, RESPONSES_END, StreamEnd};
use super::report::{Figure, Report, Target};
use super::{Peer, Plan, World, requests_to, upstream};

/// One wire format.
struct Format {
    title: &'static str,
    path: &'static str,
    /// Of the models that answer whole, and in a burst of events.
    whole: &'static str,
    burst: Option<(&'static str, StreamEnd)>,
    /// What a body has beside the model and `stream`.
    rest: &'static str,
}

const TEXT: &str = "Explain in a few sentences why the sky is blue, and why it is red in the evening.";

const FORMATS: [Format; 3] = [
    Format {
        title: "responses, 64 connections: requests/s",
        path: "/v1/responses",
        whole: "responses",
        burst: Some(("responses-burst", RESPONSES_END)),
        rest: r#""max_output_tokens":64,"input":"TEXT TEXT","instructions":"You are a helpful assistant.""#,
    },
    Format {
        title: "messages, 64 connections: requests/s",
        path: "/v1/messages",
        whole: "messages",
        burst: Some(("messages-burst", MESSAGES_END)),
        rest: r#""max_tokens":64,"system":"You are a helpful assistant.","messages":[{"role":"user","content":"TEXT TEXT"}]"#,
    },
    Format {
        title: "embeddings, 64 connections: requests/s",
        path: "/v1/embeddings",
        whole: "embeddings",
        burst: None,
        rest: r#""input":"TEXT TEXT""#,
    },
];

impl Format {
    fn body(&self, model: &str, stream: bool) -> String {
        let streaming = if stream { r#","stream":true"# } else { "" };
        format!("{{\"model\":\"bench/{model}\",{}{streaming}}}", self.rest.replace("TEXT", TEXT))
    }
}

pub async fn measure(world: &World<'_>, plan: &Plan, report: &mut Report) {
    for format in &FORMATS {
        let cases = |model, stream| {
            let body = format.body(model, stream);
            [
                (Peer::Floor, requests_to(format.path, &[], &body)),
                (Peer::Coinslot, requests_to(format.path, &world.keys, &body)),
            ]
        };
        let [floor, coinslot] = world.rounds(plan, 64, &cases(format.whole, false), None).await;
        let figure = Figure { direct: None, floor: floor.per_second, coinslot: coinslot.per_second };
        report.compare(format.title, figure, &Target::AtLeast(0.65), "≥ 0.65 × floor");
        let cpu = Figure { direct: None, floor: floor.cpu_us, coinslot: coinslot.cpu_us };
        report.compare("… CPU per request, µs", cpu, &Target::AtMost(1.6), "≤ 1.6 × floor");
        let Some((model, end)) = format.burst else { continue };
        let [floor, coinslot] = world.rounds(plan, upstream::STREAMS, &cases(model, true), Some(end)).await;
        let cpu = Figure { direct: None, floor: floor.cpu_us, coinslot: coinslot.cpu_us };
        report.compare("… streams in one burst: CPU per stream, µs", cpu, &Target::None, "");
    }
}
