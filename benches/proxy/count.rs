//! How many instructions a request takes, counted by callgrind.
//!
//! CPU time differs from run to run by more than most changes are worth; this count hardly does. It says nothing
//! about the kernel, nor about memory that is waited for. Both proxies run once more for it, under valgrind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::load::{self, CHAT_END, Load, StreamEnd};
use crate::machine::Proxy;
use crate::report::{Figure, Target};
use crate::{Plan, Report, World, chat, requests};

/// Where profiles are kept, if somebody wants to look at them.
const FOLDER: &str = "COUNT_FOLDER";

/// Puts a program under callgrind; nothing is counted before it is asked for.
pub fn wrapped() -> Vec<String> {
    let folder = std::env::var(FOLDER).unwrap_or_else(|_| std::env::temp_dir().display().to_string());
    let profile = format!("--callgrind-out-file={folder}/callgrind.%p");
    ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", &profile].map(str::to_owned).into()
}

/// Counts for each kind of answer. `world` must have been built with counted proxies.
pub async fn measure(world: &World<'_>, plan: &Plan, report: &mut Report) {
    let cases: [(&str, &str, usize, Option<StreamEnd>); 4] = [
        ("JSON, 1 connection: instructions per request, thousands", "json", 1, None),
        ("… 64 connections", "json", 64, None),
        ("streams in one burst, 8 at once", "burst", 8, Some(CHAT_END)),
        ("streams at a pace, 8 at once", "paced", 8, Some(CHAT_END)),
    ];
    for (what, model, connections, streams) in cases {
        let body = chat(model, streams.is_some());
        world.upstream.beat(model == "paced");
        let of = async |proxy: &Proxy, target, requests| {
            let load = Load { target, connections, requests, duration: plan.each * 2 };
            load::run(&Load { duration: Duration::from_secs(2), ..load.clone() }, streams).await;
            control(proxy, &["-i", "on"]);
            let tally = load::run(&load, streams).await;
            control(proxy, &["-i", "off"]);
            control(proxy, &["-d"]);
            assert!(tally.failed.is_empty(), "{:?}", tally.failed);
            counted(proxy) as f64 / tally.done.max(1) as f64 / 1e3
        };
        let floor = of(&world.floor, world.floor_address, requests(&[], &body)).await;
        let coinslot = of(&world.node.proxy, world.node.address, requests(&world.keys, &body)).await;
        report.compare(what, Figure { direct: None, floor, coinslot }, &Target::None, "");
    }
    world.upstream.beat(false);
}

/// What valgrind names its pipes by; the node has its own meaning for it.
pub fn environment() -> [(&'static str, String); 1] {
    [("HOST", "127.0.0.1".to_owned())]
}

fn control(proxy: &Proxy, order: &[&str]) {
    let mut command = Command::new("callgrind_control");
    command.args(order).arg(proxy.id().to_string()).envs(environment()).env_remove("LOGNAME");
    let run = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(run.is_ok_and(|status| status.success()), "callgrind_control {order:?}");
}

/// What the newest profile of a process sums up to.
fn counted(proxy: &Proxy) -> u64 {
    let folder = std::env::var(FOLDER).unwrap_or_else(|_| std::env::temp_dir().display().to_string());
    let prefix = format!("callgrind.{}.", proxy.id());
    let profiles = fs::read_dir(Path::new(&folder)).into_iter().flatten().flatten();
    let newest = profiles
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.strip_prefix(&prefix)?.parse::<u32>().ok()?, entry.path()))
        })
        .max();
    let text = newest.and_then(|(_, path)| fs::read_to_string(path).ok()).unwrap_or_default();
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.expect("a profile with its sum")
}
