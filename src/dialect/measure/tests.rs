use super::*;

fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap()
}

fn of(text: &str) -> Volume {
    conversation(raw(text)).unwrap()
}

#[test]
fn characters_are_counted() {
    for (text, chars) in [
        (r#""abc""#, 3),
        (r#""äöü€😀""#, 5),
        (r#""a\nb\"\\""#, 5),
        (r#""\u00e4\ud83d\ude00\uD83D\uDE00""#, 3),
        (r#""\ud83d""#, 1),
        (r#"{"role":"user","content":["x",{"y":1.5,"z":null}]}"#, 18),
        // Tokens that are given as numbers are counted apart.
        ("[1,2,true]", 0),
        (r#"{ "a" : "b:" }"#, 3),
    ] {
        assert_eq!(of(text).chars, chars, "{text}");
    }
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(conversation(raw(&deep(128))).is_ok());
    assert_eq!(conversation(raw(&deep(129))), Err(Unreadable::TooDeep));
    assert!(conversation(raw(&deep(100_000))).is_err());
    let wide = |n: usize| format!(r#"[{{{}"a":0}}]"#, r#""a":0,"#.repeat(n - 1));
    assert!(conversation(raw(&wide(MAX_MEMBERS))).is_ok());
    assert_eq!(conversation(raw(&wide(MAX_MEMBERS + 1))), Err(Unreadable::TooMany));
    assert_eq!(definitions("tools", raw(&wide(MAX_MEMBERS + 1))), Err(Unreadable::TooMany));
}

#[test]
fn images_are_counted_as_images() {
    for (text, chars, images, tokens) in [
        (r#"[{"type":"image_url","image_url":{"url":"https://x/y.png"}},"text"]"#, 29, 1, 85),
        (r#"[{"type":"input_image","image_url":"https://x/y.png"},"text"]"#, 28, 1, 85),
        (r#"{"image_url":{"url":"data:image/png;base64,?","detail":"low"}}"#, 21, 1, 85),
        (r#"{"url":"https://x"}"#, 12, 0, 0),
        (r#"{"type":"image","url":"https://x"}"#, 21, 1, 1600),
        // However its key is spelled.
        (r#"{"image\u005furl":{"u\u0072l":"https://x/y.png"}}"#, 12, 1, 85),
    ] {
        let volume = of(text);
        assert_eq!((volume.chars, volume.images, volume.image_tokens), (chars, images, tokens), "{text}");
        assert!(!volume.is_open, "{text}");
    }
    // A picture of 1024 × 1024 is 765 tokens, if it is not said to be of low detail and of high.
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x04\0\0\0\x04\0\x08\x06\0\0\0\0\0\0\0".to_vec();
    file.resize(300, 0);
    let url = format!("data:image/png;base64,{}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, file));
    for (details, tokens) in [("", 765), (r#","detail":"low""#, 85), (r#","detail":"low","detail":"high""#, 765)] {
        assert_eq!(of(&format!(r#"[{{"image_url":{{"url":"{url}"{details}}}}}]"#)).image_tokens, tokens, "{details}");
    }
}

/// Text is as long as it is, whatever it is called.
#[test]
fn text_that_poses_as_something_else_is_text() {
    let text = "two words ".repeat(60_000);
    let chars = 600_000;
    for value in [
        format!(r#"{{"type":"image_url","image_url":{{"url":"{text}"}}}}"#),
        format!(r#"{{"type":"input_image","image_url":"{text}"}}"#),
        format!(r#"{{"image_url":"data:image/png,{text}"}}"#),
        format!(r#"{{"image_url":"data:image/png;base64,{text}"}}"#),
        format!(r#"{{"image_url":"data:text/plain;base64,{text}"}}"#),
        format!(r#"{{"type":"image","source":{{"type":"base64","media_type":"image/x","data":"{text}"}}}}"#),
        format!(r#"{{"type":"document","source":{{"type":"text","media_type":"text/plain","data":"{text}"}}}}"#),
        format!(r#"{{"type":"redacted_thinking","data":"{text}"}}"#),
        format!(r#"{{"inlineData":{{"mimeType":"audio/x","data":"{text}"}}}}"#),
        format!(r#"{{"type":"input_audio","input_audio":{{"data":"{text}","format":"wav"}}}}"#),
        format!(r#"{{"file":{{"file_data":"data:text/plain;base64,{text}"}}}}"#),
        format!(r#"{{"type":"tool_use","input":{{"image_url":"{text}"}}}}"#),
        format!(r#"{{"functionCall":{{"args":{{"image_url":{{"url":"{text}"}}}}}}}}"#),
        format!(r#"{{"functionResponse":{{"response":{{"media_type":"image/x","data":"{text}"}}}}}}"#),
        format!(r#"{{"in\u0070ut":{{"a":[{{"file_data":"{text}","video_url":"{text}"}}]}}}}"#),
    ] {
        let volume = of(&value);
        let kind: String = value.chars().take(80).collect();
        assert!(volume.chars >= chars, "{kind}: {}", volume.chars);
        assert_eq!((volume.images, volume.audio_tokens, volume.is_open), (0, 0, false), "{kind}");
        let volume = definitions("tools", raw(&format!("[{value}]"))).unwrap();
        assert!(volume.chars >= chars && volume.images == 0 && !volume.is_open, "{kind}: {}", volume.chars);
    }
}

/// What is anybody's own is counted as it would be written, without spaces.
#[test]
fn json_of_tools_is_text_with_all_its_signs() {
    for text in [
        "{}",
        "[[],[],{}]",
        r#"{"x":[99999,-1.5e3,true,null]}"#,
        r#"{"a":"b","image_url":"c","data":["d",{"type":"e"}]}"#,
    ] {
        let all = text.len() as u64;
        assert_eq!(definitions("tools", raw(text)).unwrap().chars, all, "{text}");
        for name in ["input", "args", "arguments", "response", "parameters"] {
            let around = name.len() as u64;
            assert_eq!(of(&format!(r#"[{{ "{name}" : {text} }}]"#)).chars, around + all, "{name} {text}");
        }
    }
    let numbers = format!(r#"[{{"type":"tool_use","input":{{"x":[{}1]}}}}]"#, "99999,".repeat(200_000));
    assert!(of(&numbers).chars > 1_200_000);
    assert_eq!(of(r#"[{"input":99999}]"#).chars, 10);
    // Settings are no input, and their text is.
    assert_eq!(definitions("temperature", raw("0.25")).unwrap(), Volume::default());
    assert_eq!(definitions("suffix", raw(r#""end""#)).unwrap().chars, 3);
}

#[test]
fn cache_marks_are_seen_wherever_they_stand() {
    for (mark, marks, hour) in [
        (r#"{"type":"ephemeral"}"#, 1, false),
        (r#"{"type":"ephemeral","ttl":"5m"}"#, 1, false),
        (r#"{"type":"ephemeral","ttl":"1h"}"#, 1, true),
        ("null", 0, false),
    ] {
        let volumes = [
            of(&format!(r#"[{{"text":"x","cache_control":{mark}}}]"#)),
            definitions("tools", raw(&format!(r#"[{{"name":"x","cache_control":{mark}}}]"#))).unwrap(),
            definitions("cache_control", raw(mark)).unwrap(),
        ];
        for volume in volumes {
            assert_eq!((volume.cache_marks, volume.is_cached_for_an_hour), (marks, hour), "{mark}");
        }
    }
    // OpenAI's, but not in what a tool was given.
    for (ttl, longer) in [("30m", false), ("12h", true)] {
        let mark = format!(r#"{{"mode":"explicit","ttl":"{ttl}"}}"#);
        let marked = of(&format!(r#"[{{"text":"x","prompt_cache_breakpoint":{mark}}}]"#));
        for volume in [marked, definitions("prompt_cache_options", raw(&mark)).unwrap()] {
            assert_eq!((volume.cache_marks, volume.is_cached_for_longer), (1, longer), "{ttl}");
        }
        let own = of(&format!(r#"[{{"type":"tool_use","input":{{"prompt_cache_options":{mark}}}}}]"#));
        assert!(!own.is_cached_for_longer, "{ttl}");
    }
}

#[test]
fn what_is_sent_is_usually_as_long_as_its_size_tells() {
    let data = "A".repeat(68_268);
    let wav = format!("UklGR{}", "A".repeat(68_263));
    // 51,201 bytes: at 64 bytes a token, at 512, and six seconds and a half of 32 tokens, or a quarter of it.
    for (text, files, audio) in [
        (format!(r#"{{"type":"file","file":{{"filename":"y.pdf","file_data":"{data}"}}}}"#), 800, 0),
        (format!(r#"{{"type":"input_file","file_data":"data:application/pdf;base64,{data}"}}"#), 800, 0),
        (format!(r#"{{"source":{{"type":"base64","media_type":"application/pdf","data":"{data}"}}}}"#), 800, 0),
        (format!(r#"{{"inlineData":{{"mimeType":"video/mp4","data":"{data}"}}}}"#), 100, 0),
        (format!(r#"{{"image_url":{{"url":"data:video/mp4;base64,{data}"}}}}"#), 100, 0),
        (format!(r#"{{"type":"file","file":{{"file_data":"data:video/mp4;base64,{data}"}}}}"#), 100, 0),
        (format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"mp3"}}}}"#), 0, 52 * 4),
        (format!(r#"{{"type":"input_audio","input_audio":{{"data":"{wav}","format":"wav"}}}}"#), 0, 52),
        // Of what lies elsewhere nothing is known.
        (r#"{"type":"file","file":{"file_data":"https://x/y.pdf"}}"#.to_owned(), 0, 0),
        (r#"{"type":"audio_url","audio_url":{"url":"https://x/y.mp3"}}"#.to_owned(), 0, 0),
    ] {
        let volume = of(&format!("[{text}]"));
        let kind: String = text.chars().take(80).collect();
        assert_eq!((volume.usual_file_tokens, volume.usual_audio_tokens), (files, audio), "{kind}");
    }
}

/// What lies elsewhere, or is compressed, may be as long as the model reads.
#[test]
fn files_of_unknown_length_are_open() {
    const SOUND: u64 = u64::MAX;
    for (text, images, audio) in [
        (r#"{"type":"document","source":{"type":"url","url":"https://x/big.pdf"}}"#, 0, 0),
        (r#"{"source":{"type":"url","url":"https://x/big.pdf"},"type":"document"}"#, 0, 0),
        (r#"{"type":"document","type":"image","source":{"type":"url","url":"https://x/big.pdf"}}"#, 0, 0),
        (r#"{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AAAA"}}"#, 0, 0),
        (r#"{"type":"document","source":{"type":"base64","data":"AAAA"}}"#, 0, 0),
        (r#"{"type":"document","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}"#, 1, 0),
        (r#"{"source":{"type":"base64","media_type":"image/png","mime_type":"application/pdf","data":"AAAA"}}"#, 0, 0),
        (r#"{"type":"video_url","video_url":{"url":"https://x/y.mp4"}}"#, 0, 0),
        (r#"{"type":"video_url","video_url":"https://x/y.mp4"}"#, 0, 0),
        (r#"{"type":"video","video":["https://x/1.png","https://x/2.png"]}"#, 0, 0),
        (r#"{"type":"video","url":"https://x/y.mp4"}"#, 0, 0),
        (r#"{"type":"audio_url","audio_url":{"url":"https://x/y.mp3"}}"#, 0, SOUND),
        (r#"{"type":"input_audio","input_audio":{"data":"https://x/y.mp3","format":"mp3"}}"#, 0, SOUND),
        (r#"{"type":"input_file","file_url":"https://x/y.pdf"}"#, 0, 0),
        (r#"{"type":"input_file","file_data":"data:application/pdf;base64,AAAA"}"#, 0, 0),
        (r#"{"type":"file","file":{"filename":"y.pdf","file_data":"https://x/y.pdf"}}"#, 0, 0),
        (r#"{"type":"file","file":{"filename":"y.pdf","file_data":"AAAA"}}"#, 0, 0),
        (r#"{"type":"document_url","document_url":"https://x/y.pdf"}"#, 0, 0),
        (r#"{"image_url":{"url":"data:application/pdf;base64,AAAA"}}"#, 0, 0),
        (r#"{"inlineData":{"mimeType":"video/mp4","data":"AAAA"}}"#, 0, 0),
        (r#"{"inlineData":{"mimeType":"application\/pdf","data":"AAAA"}}"#, 0, 0),
        (r#"{"inlineData":{"data":"AAAA"}}"#, 0, 0),
    ] {
        let volume = of(&format!("[{text}]"));
        assert_eq!((volume.is_open, volume.images, volume.audio_tokens), (true, images, audio), "{text}");
        assert!(volume.chars < 200, "{text}");
    }
    for (text, images, audio) in [
        (r#"{"type":"image","source":{"type":"url","url":"https://x/y.png"}}"#, 1, 0),
        (r#"{"source":{"url":"https://x/y.png","type":"url"},"type":"image"}"#, 1, 0),
        (r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}"#, 1, 0),
        (r#"{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}"#, 0, 32),
        (r#"{"type":"input_audio","input_audio":{"data":"data:;base64,AAAA"}}"#, 0, 32),
        (r#"{"image_url":{"url":"data:audio/wav;base64,AAAA"}}"#, 0, 32),
        (r#"{"type":"search_result","source":"https://x/y","title":"t"}"#, 0, 0),
        (r#"{"annotations":[{"type":"url_citation","url":"https://x/y.pdf"}]}"#, 0, 0),
    ] {
        let volume = of(&format!("[{text}]"));
        assert_eq!((volume.is_open, volume.images, volume.audio_tokens), (false, images, audio), "{text}");
    }
}
