//! Work that may block, or take long: the one thread of the runtime has to see signals.

use tokio::sync::oneshot;

/// Runs `work` in a separate thread, which is abandoned when the future is dropped: the program
/// ends although a pipe is not read, or has no end. (The runtime would wait for its own threads.)
/// Returns `None` if `work` panicked.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || drop(sender.send(work())));
    receiver.await.ok()
}
