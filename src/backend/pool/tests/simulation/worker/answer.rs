//! How a worker answers a call, or fails to.

use super::*;

impl Player {
    /// Answers a call, or ends.
    pub(super) async fn answer(&mut self, open: &Open) -> Flow {
        let (id, call) = (open.id, open.call);
        self.event(&format!("answers call {call}"));
        if open.cancelled && self.dice.one_in(2) {
            self.send_error(id, -32800, "cancelled", false).await;
            return ControlFlow::Continue(());
        }
        if self.happens(Fault::Crashes) {
            return self.end("crashes");
        }
        if self.happens(Fault::Tears) {
            let bytes = self.reply(open);
            self.worker.write(&bytes[..self.dice.roll(bytes.len() + 1)]).await;
            return self.end("tears a frame");
        }
        if self.happens(Fault::BreaksRules) {
            self.break_a_rule(id).await;
        }
        if self.happens(Fault::ClosesPipes) {
            if self.dice.one_in(2) {
                self.close_stdin();
            } else {
                self.worker.closes_stdout();
            }
        }
        if self.happens(Fault::Prints) {
            let length = self.dice.pick(&[1, 100, 70_000]);
            let text = format!("{} {}", token(call), "x".repeat(length));
            self.worker.write(text.as_bytes()).await;
        }
        if self.happens(Fault::Asks) {
            for _ in 0..self.dice.pick(&[1, 10, 70]) {
                self.worker.send(json!({"id": "q".repeat(60), "method": "shim/ask"})).await;
            }
        }
        if self.happens(Fault::AsksForRetry) {
            self.history.asked_for_retry(call);
            self.send_error(id, -32000, &format!("the database of {}", token(call)), true).await;
        } else if self.happens(Fault::Refuses) {
            self.send_error(id, -32000, &format!("no {}", token(call)), false).await;
        } else if self.happens(Fault::ReturnsNonsense) && !open.node {
            let result = self.dice.pick(&["{}", "[]", r#"{"domain":"<domain>"}"#, "null"]);
            let json = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
            self.worker.write(&frame(json.as_bytes())).await;
        } else {
            let bytes = self.reply(open);
            let pause = if self.happens(Fault::IsSlow) { self.dice.roll(bytes.len()) } else { 0 };
            self.worker.write(&bytes[..pause]).await;
            if pause > 0 {
                sleep(self.dice.millis(20)).await;
            }
            self.worker.write(&bytes[pause..]).await;
        }
        // Before the shim can send the next call. Of later lines it cannot know whose they are.
        self.print(call);
        if self.happens(Fault::AnswersTwice) {
            let bytes = self.reply(open);
            self.worker.write(&bytes).await;
        }
        if self.happens(Fault::AnswersAndExits) {
            return self.end("has answered");
        }
        ControlFlow::Continue(())
    }

    /// The bytes of an answer, its attachment included.
    fn reply(&mut self, open: &Open) -> Vec<u8> {
        let id = open.id;
        if open.node {
            return frame(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).as_bytes());
        }
        let large = self.happens(Fault::LargeDocuments);
        let length = if large { self.dice.roll(3 * PIPE_BYTES) } else { 10 };
        let domain = format!("<domain>to {} {}</domain>", token(open.call), "y".repeat(length));
        if self.history.plan.attachments && self.dice.one_in(2) {
            let json =
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}},"attachments":["domain"]}}"#);
            return [frame(json.as_bytes()), frame(domain.as_bytes())].concat();
        }
        frame(
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"domain":"{domain}"}}}}"#).as_bytes(),
        )
    }

    async fn send_error(&mut self, id: u64, code: i64, message: &str, retryable: bool) {
        let data = json!({"retryable": retryable});
        let error = json!({"code": code, "message": message, "data": data});
        self.worker.send(json!({"id": id, "error": error})).await;
    }
}
