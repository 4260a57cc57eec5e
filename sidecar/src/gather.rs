//! Fewer writes for a connection that many tasks send over.
//!
//! A task that sends over an HTTP/2 connection wakes the connection's own task, which would run next
//! and write at once: a write for each request. It lets the tasks that are ready go first, and what
//! they all have to send leaves in one write. Where no other task is ready nothing is waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

pin_project! {
    /// A future that lets other tasks go first, each time that it is woken.
    #[derive(Debug)]
    pub struct Last<F> {
        #[pin]
        future: F,
        has_waited: bool,
    }
}

impl<F> Last<F> {
    /// Lets others go before `future`.
    pub fn new(future: F) -> Self {
        Self {
            future,
            has_waited: false,
        }
    }
}

impl<F: Future> Future for Last<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        *this.has_waited = !*this.has_waited;
        if *this.has_waited {
            // Tokio puts a task that wakes itself behind all that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.future.poll(context)
    }
}

/// Spawns what hyper wants to run for a connection on tokio, the connection itself to be run
/// [last](Last). That is the first of it, before the tasks of any request.
#[derive(Debug, Clone, Default)]
pub struct LastExecutor {
    has_begun: Arc<AtomicBool>,
}

impl<F> Executor<F> for LastExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        if self.has_begun.swap(true, Ordering::Relaxed) {
            tokio::spawn(future);
        } else {
            tokio::spawn(Last::new(future));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Notify;

    use super::*;

    /// What two tasks that are ready and one that the first of them wakes say when they are run.
    async fn order(last: bool) -> Vec<&'static str> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::new(Notify::new());
        let writer = {
            let (said, asked) = (said.clone(), asked.clone());
            async move {
                asked.notified().await;
                said.lock().unwrap().push("write");
            }
        };
        let writer = if last {
            tokio::spawn(Last::new(writer))
        } else {
            tokio::spawn(writer)
        };
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let senders = [(); 2].map(|()| {
            let (said, asked) = (said.clone(), asked.clone());
            tokio::spawn(async move {
                said.lock().unwrap().push("send");
                asked.notify_one();
            })
        });
        for sender in senders {
            sender.await.unwrap();
        }
        writer.await.unwrap();
        let said = said.lock().unwrap();
        said.clone()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_ready_goes_first() {
        let inside = |last| async move { tokio::spawn(order(last)).await.unwrap() };
        assert_eq!(inside(false).await, ["send", "write", "send"]);
        assert_eq!(inside(true).await, ["send", "send", "write"]);
    }
}
