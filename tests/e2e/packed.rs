//! Bodies that come packed.

use std::io::Write;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::bench;
use hookgate_tests::{Gateway, OPERATOR_KEY};

const EVENT: &[u8] = br#"{"type":"a.b","data":{"n":1}}"#;

/// A zstd frame of raw blocks with a window of so many bytes, as a power of two (RFC 8878).
fn frame(data: &[u8], window_log: u8) -> Vec<u8> {
    // No checksum, no dictionary, no content size: the window's descriptor follows.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3];
    let block = u32::try_from(data.len()).unwrap() << 3 | 1;
    frame.extend_from_slice(&block.to_le_bytes()[..3]);
    frame.extend_from_slice(data);
    frame
}

/// A frame that a reader skips.
fn skipped(data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x5a, 0x2a, 0x4d, 0x18];
    frame.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    frame.extend_from_slice(data);
    frame
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(data).unwrap();
    packer.finish().unwrap()
}

async fn send(gateway: &Gateway, media: &str, encoding: &str, body: Vec<u8>) -> (u16, String) {
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header("content-type", media).header("content-encoding", encoding);
    let answer = request.body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_frame_that_asks_for_a_huge_window_is_refused() {
    let (_folder, gateway, _) = bench().await;
    for window_log in [24, 27, 31, 41] {
        let body = frame(EVENT, window_log);
        let (status, text) = send(&gateway, "application/json", "zstd", body).await;
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &problem["code"]), (415, &json!("unsupported_encoding")), "{text}");
        assert!(problem["detail"].as_str().unwrap().contains("8 MiB"), "{text}");
    }
    let (status, text) = send(&gateway, "application/json", "zstd", frame(EVENT, 23)).await;
    assert_eq!(status, 202, "{text}");
    // Behind a frame that is well, and where each line is answered by itself.
    let line = [EVENT, b"\n"].concat();
    let body = [frame(&line, 20), frame(&line, 31)].concat();
    let (status, text) = send(&gateway, "application/x-ndjson", "zstd", body).await;
    let answers: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!((status, answers.len()), (200, 2), "{text}");
    assert_eq!((&answers[0]["status"], &answers[1]["line"]), (&json!("accepted"), &json!(2)));
    assert_eq!(answers[1]["error"]["code"], "unsupported_encoding");
}

#[tokio::test]
async fn several_frames_and_members_are_one_body() {
    let (_folder, gateway, _) = bench().await;
    let (head, tail) = EVENT.split_at(10);
    let frames = [skipped(b"index"), frame(head, 10), skipped(b""), frame(tail, 20)].concat();
    let members = [gzip(head), gzip(b""), gzip(tail)].concat();
    for (encoding, body) in
        [("zstd", frames), ("gzip", members.clone()), ("x-gzip", members), ("GZIP", gzip(EVENT))]
    {
        let (status, text) = send(&gateway, "application/json", encoding, body).await;
        assert_eq!(status, 202, "{encoding}: {text}");
    }
    let cut = |mut it: Vec<u8>| {
        it.truncate(it.len() - 3);
        it
    };
    for (encoding, body, status, code) in [
        ("gzip", [gzip(EVENT), b"rubbish".to_vec()].concat(), 400, "body_broken"),
        ("zstd", [frame(EVENT, 20), b"rubbish".to_vec()].concat(), 400, "body_broken"),
        ("gzip", cut(gzip(EVENT)), 400, "body_broken"),
        ("zstd", cut(frame(EVENT, 20)), 400, "body_broken"),
        ("zstd", skipped(b"nothing else"), 400, "invalid_json"),
        ("gzip, zstd", gzip(EVENT), 415, "unsupported_encoding"),
        ("br", gzip(EVENT), 415, "unsupported_encoding"),
    ] {
        let (got, text) = send(&gateway, "application/json", encoding, body).await;
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{encoding}: {text}");
    }
    let lines = [EVENT, b"\n", &EVENT[..5]].concat();
    let (status, text) = send(&gateway, "application/x-ndjson", "gzip", cut(gzip(&lines))).await;
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((status, &last["error"]["code"]), (200, &json!("body_broken")), "{text}");
    assert_eq!(gateway.get("events").await["data"].as_array().unwrap().len(), 5);
}

/// A frame of blocks, each with what repeats in it and how often (RFC 8878, 3.1.1.2).
fn repeated(blocks: &[(&[u8], u32)]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3];
    for (data, times) in blocks {
        let (kind, size) = match times {
            1 => (0, u32::try_from(data.len()).unwrap()),
            times => (1, *times),
        };
        frame.extend_from_slice(&(size << 3 | kind << 1).to_le_bytes()[..3]);
        frame.extend_from_slice(data);
    }
    frame.extend_from_slice(&[1, 0, 0]);
    frame
}

const BLOCK: u32 = 128 * 1024;
const LINES: &str = "application/x-ndjson";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_unpacks_to_nothing_ends_and_keeps_nobody_waiting() {
    let (_folder, gateway, _) = bench().await;
    // 16 KiB are half a gigabyte of empty lines, or of one that is too long.
    for (filler, line) in [(b"\n", 512 * u64::from(BLOCK) + 2), (b" ", 1), (b"x", 2)] {
        let body = repeated(&vec![(&filler[..], BLOCK); 4096]);
        let sent = send(&gateway, LINES, "zstd", body);
        let served = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..50 {
                let started = tokio::time::Instant::now();
                gateway.get("/readyz").await;
                slowest = slowest.max(started.elapsed());
            }
            slowest
        };
        let ((status, text), slowest) = tokio::join!(sent, served);
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let told = (status, &last["error"]["code"], last["line"].as_u64());
        assert_eq!((told.0, told.1), (200, &json!("body_too_large")), "{text}");
        assert!(told.2 <= Some(line + 1024), "{text}");
        assert!(slowest < Duration::from_millis(700), "others waited {slowest:?}");
    }
    // Blank lines between events are as they were.
    let body = repeated(&[(b"\r\n \n", 1), (b"\n", BLOCK), (EVENT, 1), (b"\n", 4), (EVENT, 1)]);
    let (_, text) = send(&gateway, LINES, "zstd", body).await;
    let told: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let numbers: Vec<_> = told.iter().map(|it| it["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [u64::from(BLOCK) + 3, u64::from(BLOCK) + 7], "{text}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn large_lines_that_came_packed_are_not_all_in_memory_at_once() {
    const EVENTS: usize = 400;
    let (_folder, gateway, _) = bench().await;
    let mut blocks = Vec::new();
    for _ in 0..EVENTS {
        blocks.push((&br#"{"type":"a.b","data":""#[..], 1));
        blocks.extend([(&b"x"[..], BLOCK); 7]);
        blocks.push((&b"\"}\n"[..], 1));
    }
    let (_, text) = send(&gateway, LINES, "zstd", repeated(&blocks)).await;
    assert_eq!(text.matches("\"accepted\"").count(), EVENTS);
    let path = format!("/proc/{}/status", gateway.child.id());
    let status = std::fs::read_to_string(path).unwrap();
    let most = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
    let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(most < 300_000, "{most} kB");
}
