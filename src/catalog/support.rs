//! What a model is known not to do, by what its entry lists. A list that is empty says nothing, and a feature
//! that no list speaks of may be there.

use super::model::Model;
use crate::dialect::{Feature, Needs};

/// The first of these that the model lacks, as far as its entry says.
#[must_use]
pub fn lacks(model: &Model, needs: Needs) -> Option<Feature> {
    if needs.is_empty() {
        return None;
    }
    let lists =
        |list: &[String], names: &[&str]| list.is_empty() || list.iter().any(|one| names.contains(&one.as_str()));
    let (parameters, architecture) = (&model.supported_parameters, &model.architecture);
    let takes = |medium| lists(&architecture.input_modalities, &[medium]);
    let makes = |medium| lists(&architecture.output_modalities, &[medium]);
    let has = |feature: Feature| match feature {
        Feature::Streaming => true,
        Feature::Vision => takes("image"),
        Feature::AudioInput => takes("audio"),
        Feature::AudioOutput => makes("audio"),
        Feature::ImageOutput => makes("image"),
        Feature::Tools => lists(parameters, &["tools", "functions"]),
        Feature::ToolChoice => lists(parameters, &["tool_choice"]),
        Feature::StructuredOutput => lists(parameters, &["structured_outputs"]),
        Feature::JsonOutput => lists(parameters, &["response_format", "structured_outputs"]),
        Feature::Reasoning => lists(parameters, &["reasoning", "reasoning_effort", "include_reasoning"]),
        Feature::Logprobs => lists(parameters, &["logprobs", "top_logprobs"]),
    };
    needs.iter().find(|feature| !has(*feature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_tells() {
        let model = |more: &str| {
            let entry = format!(r#"{{"id":"m","pricing":{{"prompt":"0","completion":"0"}}{more}}}"#);
            Model::from_entry(&serde_json::from_str::<Box<serde_json::value::RawValue>>(&entry).unwrap()).unwrap()
        };
        let all: Needs = Feature::ALL.iter().copied().collect();
        for (more, needs, expected) in [
            ("", all, None),
            (r#","supported_parameters":[],"architecture":{"input_modalities":[]}"#, all, None),
            (r#","supported_parameters":["max_tokens"]"#, Needs::default(), None),
            (r#","supported_parameters":["max_tokens"]"#, all, Some(Feature::Tools)),
            (r#","supported_parameters":["tools"]"#, all, Some(Feature::ToolChoice)),
            (r#","architecture":{"input_modalities":["text"]}"#, all, Some(Feature::Vision)),
            (r#","architecture":{"input_modalities":["text","image","audio"]}"#, all, None),
            (r#","architecture":{"output_modalities":["text"]}"#, all, Some(Feature::AudioOutput)),
        ] {
            assert_eq!(lacks(&model(more), needs), expected, "{more}");
        }
    }
}
