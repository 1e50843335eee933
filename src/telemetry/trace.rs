//! The trace of one request, under construction.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::{self, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use tokio::time::Instant;

use super::Collector;

/// Most steps of one request that are kept.
const MOST_STEPS: usize = 64;

/// What a span says under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

pub(super) fn pair(name: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Number(number) => any_value::Value::IntValue(*number),
        Value::Flag(flag) => any_value::Value::BoolValue(*flag),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// What a client says that its request is a part of (`traceparent`, W3C Trace Context). It is a link and no parent:
/// a stranger does not decide what belongs to the operator's traces. It goes nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    trace: [u8; 16],
    span: [u8; 8],
}

impl Link {
    /// `None`: it is none, to the letter.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "00" || parts.next().is_some() || bytes::<1>(flags).is_none() {
            return None;
        }
        let link = Self { trace: bytes(trace)?, span: bytes(span)? };
        (link.trace != [0; 16] && link.span != [0; 8]).then_some(link)
    }
}

/// Lower-case hexadecimal digits, exactly so many.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if hex.len() != N.saturating_mul(2) || !hex.bytes().all(digit) {
        return None;
    }
    let mut found = [0; N];
    for (at, byte) in found.iter_mut().enumerate() {
        let from = at.saturating_mul(2);
        *byte = u8::from_str_radix(hex.get(from..from.saturating_add(2))?, 16).ok()?;
    }
    Some(found)
}

/// When something began, where that is noted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step(Option<Instant>);

/// The trace of a request; nothing at all where nothing is traced.
#[derive(Debug, Default)]
pub struct Trace(Option<Box<Sketch>>);

#[derive(Debug)]
struct Sketch {
    collector: Collector,
    trace: [u8; 16],
    root: [u8; 8],
    began_ms: i64,
    began: Instant,
    link: Option<Link>,
    said: Vec<KeyValue>,
    steps: Vec<Span>,
}

impl Trace {
    pub(super) fn begin(collector: Collector, now_ms: i64, link: Option<Link>) -> Self {
        Self(Some(Box::new(Sketch {
            collector,
            trace: rand::random(),
            root: rand::random(),
            began_ms: now_ms,
            began: Instant::now(),
            link,
            said: Vec::with_capacity(16),
            steps: Vec::with_capacity(6),
        })))
    }

    /// Something begins.
    #[must_use]
    pub fn step(&self) -> Step {
        Step(self.0.as_ref().map(|_| Instant::now()))
    }

    /// Says something of the request.
    pub fn say(&mut self, name: &str, value: impl FnOnce() -> Value) {
        if let Some(sketch) = &mut self.0 {
            sketch.said.push(pair(name, &value()));
        }
    }

    /// It has ended: well, or with this. `calls`: another server was asked.
    pub fn end(
        &mut self,
        step: Step,
        name: &str,
        calls: bool,
        error: Option<&str>,
        said: impl FnOnce() -> Vec<(&'static str, Value)>,
    ) {
        let (Some(sketch), Some(began)) = (&mut self.0, step.0) else { return };
        if sketch.steps.len() >= MOST_STEPS {
            return;
        }
        let mut attributes: Vec<KeyValue> = said().iter().map(|(name, value)| pair(name, value)).collect();
        attributes.extend(error.map(|error| pair("error.type", &Value::from(error))));
        let span = Span {
            trace_id: sketch.trace.to_vec(),
            span_id: rand::random::<[u8; 8]>().to_vec(),
            parent_span_id: sketch.root.to_vec(),
            name: name.to_owned(),
            kind: if calls { SpanKind::Client.into() } else { SpanKind::Internal.into() },
            start_time_unix_nano: sketch.nanos(began),
            end_time_unix_nano: sketch.nanos(Instant::now()),
            attributes,
            status: status(error.is_some()),
            ..Span::default()
        };
        sketch.steps.push(span);
    }

    /// The request is over: well, or with this.
    pub fn finish(self, name: &str, error: Option<&str>) {
        let Some(sketch) = self.0 else { return };
        let end_time_unix_nano = sketch.nanos(Instant::now());
        let start_time_unix_nano = sketch.nanos(sketch.began);
        let Sketch { collector, trace, root, link, mut said, mut steps, .. } = *sketch;
        said.extend(error.map(|error| pair("error.type", &Value::from(error))));
        let links = link.map(|link| span::Link {
            trace_id: link.trace.to_vec(),
            span_id: link.span.to_vec(),
            ..span::Link::default()
        });
        steps.push(Span {
            trace_id: trace.to_vec(),
            span_id: root.to_vec(),
            name: name.to_owned(),
            kind: SpanKind::Server.into(),
            start_time_unix_nano,
            end_time_unix_nano,
            attributes: said,
            links: links.into_iter().collect(),
            status: status(error.is_some()),
            ..Span::default()
        });
        collector.take(steps);
    }
}

impl Sketch {
    /// The clock's time at the beginning, and what has passed since: it must not run backwards in a trace.
    fn nanos(&self, at: Instant) -> u64 {
        let began = Duration::from_millis(u64::try_from(self.began_ms).unwrap_or_default());
        let at = began.saturating_add(at.saturating_duration_since(self.began));
        u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn status(failed: bool) -> Option<Status> {
    failed.then(|| Status { message: String::new(), code: StatusCode::Error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_to_the_letter() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let link = Link::parse(good).unwrap();
        assert_eq!((link.trace[0], link.trace[15], link.span[7]), (0x4b, 0x36, 0xb7));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473+-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Link::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_traced_costs_nothing() {
        let mut trace = Trace::default();
        let step = trace.step();
        assert!(step.0.is_none(), "no clock is read");
        trace.say("a", || panic!("nothing is said"));
        trace.end(step, "b", true, None, || panic!("nothing is said"));
        assert_eq!(size_of::<Trace>(), size_of::<usize>());
        trace.finish("c", None);
    }
}
