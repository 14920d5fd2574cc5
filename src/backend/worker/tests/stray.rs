//! Workers that write something other than messages: it is described wherever their failure is
//! reported, and never quoted.

use super::*;

const SECRET: &str = "s3cr3t";

/// What workers write that frame their messages as other protocols do, or print; and how it is
/// described. None of it is followed by a frame.
fn mistakes() -> Vec<(Vec<u8>, &'static str)> {
    let message = json!({"jsonrpc": "2.0", "id": 1, "result": SECRET}).to_string();
    let length = u32::try_from(message.len()).unwrap();
    let utf16 = || message.encode_utf16();
    vec![
        (format!("{message}\n").into(), "1 line, which look like lines of JSON without a length"),
        (message.clone().into(), "1 line, which look like JSON without a length"),
        (
            format!("Content-Length: {length}\r\n\r\n{message}").into(),
            "3 lines, which look like a `Content-Length` header",
        ),
        (
            [&length.to_le_bytes()[..], message.as_bytes()].concat(),
            "1 byte in 1 line, which looks like a length in little-endian order: write the length \
             of each message in big-endian order",
        ),
        (
            [&[0, 1, 0, 0], message.as_bytes(), &[b' '; 256]].concat(),
            "a length in little-endian order: write the length of each message in big-endian order",
        ),
        (utf16().flat_map(u16::to_le_bytes).collect(), "UTF-16: write messages in UTF-8"),
        (utf16().flat_map(u16::to_be_bytes).collect(), "UTF-16: write messages in UTF-8"),
        (format!("<domain>{SECRET}").into(), "an XML document"),
        (format!("waiting for {SECRET}\n").into(), "19 bytes in 1 line, which look like text"),
        (format!("password: {SECRET}\n").repeat(200).into(), "3400 bytes in 200 lines"),
        ([b"\0\0\x10\0", SECRET.as_bytes()].concat(), "half a frame, 10 of 4100 bytes"),
        (b"\0\0".to_vec(), "half of a frame's length, 2 of 4 bytes"),
    ]
}

#[track_caller]
fn assert_described(text: &str, expected: &str) {
    assert!(text.contains("; its stdout ends with "), "{expected}: {text}");
    assert!(text.contains(expected), "{expected}: {text}");
    assert!(text.contains("; it wrote nothing to its stderr"), "{expected}: {text}");
    assert!(!text.contains(SECRET), "{expected}: {text}");
}

#[tokio::test(start_paused = true)]
async fn it_is_described_when_initialize_is_not_answered_in_time() {
    for (bytes, expected) in mistakes() {
        let (bench, mut worker) = Bench::start_with(settings()).await;
        worker.write(&bytes).await;
        let fault = bench.failed().await;
        assert!(
            fault.contains("did not answer initialize within 1m (--start-timeout);"),
            "{fault}"
        );
        assert_described(&fault, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_described_when_a_call_misses_its_deadline() {
    for (bytes, expected) in mistakes() {
        let (bench, mut worker) = Bench::start(json!({})).await;
        let reply = bench.call(domain_call(), SECOND);
        worker.request().await;
        worker.write(&bytes).await;
        let failure = failure(result(reply).await);
        assert!(failure.starts_with("did not answer within 1.0 s"), "{failure}");
        assert_described(&failure, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_described_when_the_worker_exits() {
    for (bytes, expected) in mistakes().into_iter().filter(|(bytes, _)| !bytes.contains(&0)) {
        let (bench, mut worker) = Bench::start(json!({})).await;
        let reply = bench.call(node_call(), LONG);
        worker.request().await;
        worker.write(&bytes).await;
        worker.exit(3);
        let failure = failure(result(reply).await);
        assert!(failure.starts_with("failed: fake-worker exited with status 3;"), "{failure}");
        assert_described(&failure, expected);

        let (bench, mut worker) = Bench::start_with(settings()).await;
        worker.write(&bytes).await;
        worker.exit(0);
        let fault = bench.failed().await;
        assert!(fault.contains("exited with status 0 before it answered initialize"), "{fault}");
        assert_described(&fault, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_described_when_the_worker_breaks_a_rule_behind_it() {
    let (bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    worker.request().await;
    // What follows the first byte is taken for a frame of 123 bytes.
    let message =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"{SECRET}\"{}}}", " ".repeat(99));
    let length = u32::try_from(message.len()).unwrap();
    worker.write(&[&length.to_le_bytes()[..], message.as_bytes()].concat()).await;
    let failure = failure(result(reply).await);
    assert!(failure.contains("broke the worker protocol: a message is"), "{failure}");
    assert_described(&failure, "a length in little-endian order");

    let (bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    worker.request().await;
    worker.write(format!("{SECRET}\n").repeat(10_000).as_bytes()).await;
    let failure = self::failure(result(reply).await);
    let expected = "more than 65536 bytes of stray output, which look like text: print to stderr";
    assert!(failure.contains(expected) && !failure.contains(SECRET), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn text_before_an_answer_is_no_part_of_a_later_failure() {
    let (mut bench, mut worker) = Bench::start(json!({})).await;
    let reply = bench.call(domain_call(), LONG);
    let request = worker.request().await;
    worker.write(b"a print\n").await;
    worker.reply(request.id, "good").await;
    assert_eq!(domain(result(reply).await), "<domain>good</domain>");
    bench.finished().await;
    let reply = bench.call(domain_call(), SECOND);
    worker.request().await;
    let failure = failure(result(reply).await);
    assert!(!failure.contains("its stdout"), "{failure}");
}
