//! The time that a device gives a request.

use std::future::Future;
use std::time::Duration;

use http::HeaderMap;
use sidecod_wire::header::DEADLINE;
use tokio::time::{Instant, timeout};

use crate::fail::Fail;

/// No device waits longer.
const LONGEST: Duration = Duration::from_hours(1);

/// When the head of the answer is no longer of use.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    arrived: Instant,
    /// None: the device has not said.
    given: Option<Duration>,
}

impl Deadline {
    /// The deadline of a request that has just arrived.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers
            .get(DEADLINE)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|ms| Duration::from_millis(ms).min(LONGEST));
        Self {
            arrived: Instant::now(),
            given,
        }
    }

    /// What is left of it.
    #[must_use]
    pub fn rest(&self) -> Option<Duration> {
        self.given
            .map(|given| given.saturating_sub(self.arrived.elapsed()))
    }

    /// Work on a picture, which may take half of the time, so that the other half is left for the
    /// body as it is.
    ///
    /// # Errors
    /// [`Fail::Late`], or as the work.
    pub async fn half<T>(&self, work: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
        let Some(half) = self.given.map(|given| given / 2) else {
            return work.await;
        };
        let late = |_| Fail::Late(half);
        timeout(half, work).await.map_err(late)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(value: &str) -> Deadline {
        let mut headers = HeaderMap::new();
        headers.insert(DEADLINE, value.parse().unwrap());
        Deadline::of(&headers)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_goes_to_the_model_server() {
        let deadline = deadline("3000");
        tokio::time::advance(Duration::from_millis(1250)).await;
        assert_eq!(deadline.rest(), Some(Duration::from_millis(1750)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(deadline.rest(), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn pictures_get_half() {
        let deadline = deadline("3000");
        let begin = Instant::now();
        let never = std::future::pending::<Result<(), Fail>>();
        assert!(matches!(deadline.half(never).await, Err(Fail::Late(_))));
        assert_eq!(begin.elapsed(), Duration::from_millis(1500));
    }

    #[test]
    fn nonsense_is_no_deadline() {
        for value in ["", "-1", "soon", "1e3", "99999999999999999999999"] {
            assert_eq!(deadline(value).rest(), None, "{value}");
        }
        let far = deadline("18446744073709551615").rest().unwrap();
        assert!(far <= LONGEST);
    }
}
