//! Threads for work that keeps a core busy, with a bounded queue before them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use sidecod_sidecar::metrics::Gauged;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads and a queue of fixed length.
pub struct Pool {
    queue: SyncSender<(Gauged, Job)>,
}

/// The queue is full, or the work has failed.
#[derive(Debug, thiserror::Error)]
pub enum Full {
    /// No place in the queue.
    #[error("the encoding queue is full")]
    Queue,
    /// The job did not end as it should.
    #[error("encoding failed")]
    Failed,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(name: &str, threads: usize, queue: usize) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<(Gauged, Job)>(queue);
        let receiver = Arc::new(Mutex::new(receiver));
        for index in 0..threads {
            let receiver = receiver.clone();
            thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || {
                    while let Some((queued, job)) = next(&receiver) {
                        drop(queued);
                        // The waiting side sees its answer's sender dropped; the thread lives on.
                        if catch_unwind(AssertUnwindSafe(job)).is_err() {
                            tracing::error!("a job of the encoding pool panicked");
                        }
                    }
                })?;
        }
        Ok(Self { queue: sender })
    }

    /// Runs a job on one of the threads.
    ///
    /// # Errors
    /// [`Full`] at once if the queue has no place, or if the job panics.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Full> {
        let (answer, waiting) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The request may be gone by the time its turn comes.
            if !answer.is_closed() {
                let _ = answer.send(job());
            }
        });
        let queued = Gauged::new(metrics::gauge!("sidecod_device_encode_queue_depth"));
        match self.queue.try_send((queued, job)) {
            Ok(()) => waiting.await.map_err(|_| Full::Failed),
            Err(TrySendError::Full(_)) => Err(Full::Queue),
            Err(TrySendError::Disconnected(_)) => Err(Full::Failed),
        }
    }
}

fn next(receiver: &Mutex<Receiver<(Gauged, Job)>>) -> Option<(Gauged, Job)> {
    receiver
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_says_so_at_once_and_a_panic_costs_no_thread() {
        let pool = Arc::new(Pool::start("test", 1, 1).unwrap());
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (started, mut waiting) = tokio::sync::mpsc::channel::<()>(1);
        let busy = tokio::spawn({
            let pool = pool.clone();
            async move {
                let job = move || {
                    started.blocking_send(()).unwrap();
                    gate.recv().unwrap();
                    1
                };
                pool.run(job).await
            }
        });
        waiting.recv().await.unwrap();
        let mut queued = Box::pin(pool.run(|| 2));
        assert!(futures_pending(&mut queued).await);
        assert!(matches!(pool.run(|| 3).await, Err(Full::Queue)));
        release.send(()).unwrap();
        assert_eq!(busy.await.unwrap().unwrap(), 1);
        assert_eq!(queued.await.unwrap(), 2);
        assert!(matches!(
            pool.run(|| panic!("on purpose")).await,
            Err::<(), _>(Full::Failed)
        ));
        assert_eq!(pool.run(|| 4).await.unwrap(), 4);
    }

    /// Polls once.
    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
