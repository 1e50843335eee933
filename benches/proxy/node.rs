//! The node under test: the release binary, started as an operator would start it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::machine::Proxy;
use crate::wire::{self, Connection};

/// Models on its list: the length that the target for `/v1/models` speaks of.
const MODELS: usize = 400;

/// A running node. Its files go with it.
pub struct Node {
    pub address: SocketAddr,
    pub proxy: Proxy,
    _folder: TempDir,
}

impl Node {
    pub async fn start(under: &[String], upstream: &str, mint: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let models = folder.path().join("models.json");
        std::fs::write(&models, model_list().to_string()).expect("models.json");
        let address = free_address();
        let environment = [
            ("HOST", address.ip().to_string()),
            ("PORT", address.port().to_string()),
            ("DATA_DIR", folder.path().join("data").display().to_string()),
            ("UPSTREAM_BASE_URL", upstream.to_owned()),
            ("CASHU_MINTS", mint.to_owned()),
            ("MINT_MAX_CONCURRENCY", "16".to_owned()),
            ("MODELS_PATH", models.display().to_string()),
            ("BTC_USD_FIXED", "100000".to_owned()),
            ("ADMIN_PASSWORD", "a password for the benchmark".to_owned()),
            // As the image and the unit have it.
            ("MALLOC_ARENA_MAX", "2".to_owned()),
        ];
        let binary = Path::new(env!("CARGO_BIN_EXE_coinslot"));
        let mut proxy = Proxy::start(under, binary, &[], folder.path(), &environment);
        proxy.mute();
        wait_until_ready(address, &mut proxy).await;
        Self { address, proxy, _folder: folder }
    }

    /// What it says about a key.
    pub async fn wallet_info(&self, key: &str) -> Value {
        let bearer = format!("Bearer {key}");
        self.get("/v1/wallet/info", &[("authorization", &bearer)]).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Value {
        let mut connection = Connection::open(self.address).await.expect("connection");
        let answer = connection.fetch(&wire::get(path, headers)).await.expect(path);
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("address")
}

async fn wait_until_ready(address: SocketAddr, proxy: &mut Proxy) {
    let end = Instant::now() + Duration::from_secs(120);
    while Instant::now() < end {
        assert!(!proxy.has_ended(), "the node ended; what it said is above");
        if let Ok(mut connection) = Connection::open(address).await
            && let Ok(answer) = connection.fetch(&wire::get("/readyz", &[])).await
            && answer.status == 200
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the node was not ready within two minutes");
}

/// The example list, repeated under other names, and the models of the benchmark's upstream.
fn model_list() -> Value {
    let example: Value = serde_json::from_str(include_str!("../../models.example.json")).expect("the example list");
    let example = example["models"].as_array().expect("models");
    let names = ["responses", "responses-burst", "messages", "messages-burst", "json", "chunked", "paced", "burst"];
    let mut models: Vec<Value> = names.map(bench_model).into();
    let mut embeddings = bench_model("embeddings");
    // So that 60 tokens cost what 60 and 40 of the others do.
    embeddings["pricing"] = json!({ "prompt": "0.00000055", "completion": "0" });
    models.push(embeddings);
    for (index, entry) in example.iter().cycle().take(MODELS - models.len()).enumerate() {
        let mut entry = entry.clone();
        let id = format!("{}-{index}", entry["id"].as_str().expect("id"));
        entry["id"] = json!(id);
        entry["canonical_slug"] = json!(id);
        models.push(entry);
    }
    json!({ "models": models })
}

fn bench_model(name: &str) -> Value {
    json!({
        "id": format!("bench/{name}"),
        "name": name,
        "created": 1_700_000_000,
        "description": "A model of the benchmark.",
        "context_length": 128_000,
        "architecture": {
            "modality": "text->text", "input_modalities": ["text"], "output_modalities": ["text"],
            "tokenizer": "Other", "instruct_type": null
        },
        "pricing": { "prompt": "0.00000015", "completion": "0.0000006" },
        "top_provider": { "context_length": 128_000, "max_completion_tokens": 16_384, "is_moderated": false },
        "per_request_limits": null
    })
}
