//! The body of a response while it is received: deadline, minimum rate, and damage.
//!
//! This file owns when a body fails. It must not know what a body holds.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::bandwidth::Bandwidth;
use crate::{
    causes,
    outcome::{Evidence, Failure, Outcome},
};

/// The minimum rate is an average over this much time of waiting for the vendor.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// The bytes of a response in the order of arrival.
pub(super) struct Body {
    response: reqwest::Response,
    /// Scheme and host of the sender, for messages.
    origin: String,
    expected: Option<u64>,
    received: u64,
    limits: BodyLimits,
    bandwidth: Bandwidth,
    /// Time spent waiting in the current window. The consumer's own time does not count.
    waited: Duration,
    received_in_window: u64,
    evidence: Evidence,
}

/// Limits on the time of a body.
#[derive(Clone, Copy)]
pub(super) struct BodyLimits {
    /// When the last byte must have arrived.
    pub(super) deadline: Instant,
    /// The configured time of the attempt that `deadline` follows from, for messages.
    pub(super) attempt_timeout: Duration,
    /// In bytes per second; 0 is no minimum.
    pub(super) min_rate: u64,
}

impl Body {
    /// The body of `response`, which `origin` sent and `evidence` describes.
    pub(super) fn new(
        response: reqwest::Response,
        origin: String,
        limits: BodyLimits,
        bandwidth: Bandwidth,
        evidence: Evidence,
    ) -> Self {
        Body {
            expected: response.content_length(),
            response,
            origin,
            received: 0,
            limits,
            bandwidth,
            waited: Duration::ZERO,
            received_in_window: 0,
            evidence,
        }
    }

    /// Length in bytes that the response announced.
    pub(super) fn announced_length(&self) -> Option<u64> {
        self.expected
    }

    /// The next bytes as received; `None` at a proper end.
    ///
    /// # Errors
    ///
    /// `unavailable` when the vendor is too slow or the connection is lost, `corrupt` when the body is incomplete. The
    /// message may quote the server, so it may contain secrets.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let started = Instant::now();
            if started >= self.limits.deadline {
                return Err(self.overdue());
            }
            let until = match self.limits.min_rate {
                0 => self.limits.deadline,
                _ => self.limits.deadline.min(started + RATE_WINDOW.saturating_sub(self.waited)),
            };
            let chunk = match timeout_at(until, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => Some(bytes),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(self.broken(error.without_url())),
                Err(_) if until == self.limits.deadline => return Err(self.overdue()),
                Err(_) => None,
            };
            let length = chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
            self.received += length;
            self.received_in_window += length;
            self.waited += started.elapsed();
            if self.limits.min_rate > 0 && self.waited >= RATE_WINDOW {
                if self.received_in_window < self.limits.min_rate.saturating_mul(RATE_WINDOW.as_secs()) {
                    return Err(self.too_slow());
                }
                self.waited = Duration::ZERO;
                self.received_in_window = 0;
            }
            if chunk.is_some() {
                self.keep_to_bandwidth(length).await?;
                return Ok(chunk);
            }
        }
    }

    /// Waits until the limit of all downloads has room for `bytes`. The minimum rate does not count this time, but the
    /// deadline does.
    async fn keep_to_bandwidth(&self, bytes: u64) -> Result<(), Failure> {
        let now = Instant::now();
        let admitted_at = self.bandwidth.admit(bytes, now);
        if admitted_at > now {
            sleep_until(admitted_at.min(self.limits.deadline)).await;
        }
        match admitted_at > self.limits.deadline {
            true => Err(self.overdue()),
            false => Ok(()),
        }
    }

    fn overdue(&self) -> Failure {
        Failure::after(
            &self.evidence,
            Outcome::Unavailable,
            format!(
                "{} did not finish sending within {:?}, only {}; see limits.attempt_timeout",
                self.origin,
                self.limits.attempt_timeout,
                self.progress()
            ),
        )
    }

    fn too_slow(&self) -> Failure {
        let message = format!(
            "{} sent slower than {} bytes a second: {} bytes in {:?} of waiting, {} in all; see limits.min_rate",
            self.origin,
            self.limits.min_rate,
            self.received_in_window,
            RATE_WINDOW,
            self.progress()
        );
        Failure::after(&self.evidence, Outcome::Unavailable, message)
    }

    /// A body that ends before its announced end, or with wrong framing, is `corrupt`; a lost connection is
    /// `unavailable`.
    fn broken(&self, error: reqwest::Error) -> Failure {
        let cut = match causes::innermost::<io::Error>(&error).map(io::Error::kind) {
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                causes::innermost::<rustls::Error>(&error).is_none()
            }
            Some(_) => false,
            // HTTP/2: the peer violated the protocol, for example by ending a stream before its length.
            None => causes::innermost::<h2::Error>(&error).is_some_and(h2::Error::is_library),
        };
        let root = causes::root(&error);
        if cut {
            Failure::after(
                &self.evidence,
                Outcome::Corrupt,
                format!("the body from {} broke off after {}: {root}", self.origin, self.progress()),
            )
        } else {
            let message = format!("the connection to {} was lost after {}: {root}", self.origin, self.progress());
            Failure::after(&self.evidence, Outcome::Unavailable, message)
        }
    }

    fn progress(&self) -> String {
        match self.expected {
            Some(expected) => format!("{} of {expected} bytes", self.received),
            None => format!("{} bytes", self.received),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{Stream, StreamExt as _, stream};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A body that arrives as `pieces`.
    fn body(attempt_timeout: Duration, min_rate: u64, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
        let pieces = reqwest::Body::wrap_stream(pieces.map(Ok::<_, Infallible>));
        let limits = BodyLimits { deadline: Instant::now() + attempt_timeout, attempt_timeout, min_rate };
        let response = hyper::Response::new(pieces).into();
        let origin = "https://vendor.example".to_owned();
        let body = Body::new(response, origin, limits, Bandwidth::default(), Evidence::default());
        Body { expected: Some(9), ..body }
    }

    /// An endless body, one byte after each `pause`.
    fn trickle(pause: Duration) -> impl Stream<Item = Bytes> {
        stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Bytes::from_static(b"x"), ()))
        })
    }

    /// Why `body` ended, and after how long.
    async fn end(mut body: Body) -> (String, Duration) {
        let started = Instant::now();
        loop {
            match body.chunk().await {
                Ok(bytes) => assert!(bytes.is_some(), "the body ended well"),
                Err(failure) => {
                    assert_eq!(failure.outcome, Outcome::Unavailable);
                    return (failure.message, started.elapsed());
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_slower_than_the_minimum_rate_ends() {
        let (message, after) = end(body(HOUR, 1024, trickle(Duration::from_millis(300)))).await;
        assert!(message.contains("slower than 1024 bytes a second"), "{message}");
        assert!(after < Duration::from_secs(12), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_minimum_rate_a_slow_body_ends_at_the_deadline_of_the_attempt() {
        let minute = Duration::from_secs(60);
        let (message, after) = end(body(minute, 0, trickle(Duration::from_millis(300)))).await;
        assert!(message.contains("within 60s"), "{message}");
        assert_eq!(after.as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_ends_at_the_minimum_rate() {
        let pieces = stream::iter([Bytes::from_static(b"PK")]).chain(stream::pending());
        let (message, after) = end(body(HOUR, 1024, pieces)).await;
        assert!(message.contains("2 of 9 bytes"), "{message}");
        assert!(after < Duration::from_secs(21), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_consumer_does_not_count_against_the_minimum_rate() {
        let mut body = body(2 * HOUR, 1024, trickle(Duration::from_millis(100)).take(60));
        let mut total = 0;
        while let Ok(Some(bytes)) = body.chunk().await {
            total += bytes.len();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(total, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limited_bandwidth_does_not_count_against_the_minimum_rate_and_ends_at_the_deadline() {
        let limited = |attempt_timeout, pieces: usize| {
            let pieces = stream::repeat(Bytes::from_static(&[0; 1000])).take(pieces);
            let body = body(attempt_timeout, 1024, pieces);
            body.bandwidth.set(Some(100));
            body
        };
        let started = Instant::now();
        let mut whole = limited(2 * HOUR, 361);
        while whole.chunk().await.unwrap().is_some() {}
        assert_eq!(started.elapsed(), HOUR);
        let (message, after) = end(limited(HOUR, 1000)).await;
        assert!(message.contains("limits.attempt_timeout"), "{message}");
        assert_eq!(after, HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_pauses_ends_at_the_deadline_of_the_attempt() {
        let mut body = body(HOUR, 1024, stream::repeat(Bytes::from_static(b"x")));
        let failure = loop {
            match body.chunk().await {
                Ok(bytes) => assert!(bytes.is_some(), "the body ended well"),
                Err(failure) => break failure,
            }
            tokio::time::sleep(Duration::from_secs(1200)).await;
        };
        assert!(failure.message.contains("limits.attempt_timeout"), "{}", failure.message);
    }
}
