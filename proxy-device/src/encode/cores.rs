//! The cores that pictures may have, for work that falls into pieces.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// Cores that several pictures share; a permit is one that none of them has at the moment.
#[derive(Clone)]
pub struct Cores(Arc<Semaphore>);

impl Cores {
    /// So many, one at least.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count.max(1))))
    }

    /// Does `count` pieces of work on this thread, and on as many more as there are free cores. What
    /// comes out is in no order.
    ///
    /// # Errors
    /// The first of the pieces' own.
    pub fn share<T: Send, E: Send>(
        &self,
        count: usize,
        piece: impl Fn(usize) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let _own = self.0.try_acquire();
        let more = (1..count).map_while(|_| self.0.try_acquire().ok());
        let more: Vec<_> = more.collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(done);
                }
                done.push(piece(index)?);
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = more.iter().map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for other in others {
                // The pool's thread takes a panic for a failed job, whichever thread it was in.
                let other = other.join().unwrap_or_else(|panic| resume_unwind(panic));
                done = done.and_then(|mut done| {
                    done.extend(other?);
                    Ok(done)
                });
            }
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_and_the_cores_are_given_back() {
        let cores = Cores::new(3);
        let mut done = cores.share(7, Ok::<_, ()>).unwrap();
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(cores.0.available_permits(), 3);
        let failed = cores.share(7, |index| if index == 5 { Err(index) } else { Ok(()) });
        assert_eq!(failed, Err(5));
        assert_eq!(cores.0.available_permits(), 3);
    }
}
