//! Sends archives and pages: whole, or changed by a fault.
//!
//! This file owns bodies and the headers that describe them. It must not know requests or rules.

use std::{io, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Response, Version, header},
};
use bytes::Bytes;
use futures::stream;

use super::{
    archives::Archive,
    faults::{ContentEncoding, Framing},
    wire::Breaker,
};

/// The largest piece that is read and sent, in bytes.
const PIECE: u64 = 256 << 10;

/// How one body is sent.
#[derive(Debug)]
pub(super) struct Transmission {
    pub(super) content_type: HeaderValue,
    pub(super) framing: Framing,
    /// The number of bytes after which the body ends, and how; `None` is the ordinary end.
    pub(super) end: Option<(u64, End)>,
    /// The offset of a byte, and the bits of it that are inverted.
    pub(super) flip: Option<(u64, u8)>,
    pub(super) bytes_per_second: Option<NonZeroU32>,
    pub(super) content_encoding: Option<ContentEncoding>,
}

impl Transmission {
    /// The whole body, unchanged.
    pub(super) fn of(content_type: &'static str) -> Transmission {
        Transmission {
            content_type: HeaderValue::from_static(content_type),
            framing: Framing::default(),
            end: None,
            flip: None,
            bytes_per_second: None,
            content_encoding: None,
        }
    }
}

/// An end of a body that a fault causes.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// No further bytes on an open connection.
    Stall,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
}

/// The response with `archive` as its body, on the connection of `breaker`.
///
/// # Errors
///
/// When temporary files fail.
pub(super) async fn send(
    archive: Arc<Archive>,
    transmission: Transmission,
    breaker: Breaker,
) -> io::Result<Response<Body>> {
    let archive = match transmission.content_encoding {
        Some(ContentEncoding::Layer) => Arc::new(archive.gzipped().await?),
        Some(ContentEncoding::LabelOnly) | None => archive,
    };
    let size = archive.size();
    let labelled = transmission.content_encoding.is_some();
    let (framing, content_type) = (transmission.framing, transmission.content_type.clone());
    let sending = Sending { archive, transmission, breaker, at: 0 };
    let mut response = Response::new(Body::from_stream(stream::try_unfold(sending, Sending::piece)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    if labelled {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    match framing {
        Framing::ContentLength => {
            headers.insert(header::CONTENT_LENGTH, size.into());
        }
        Framing::Chunked => {}
        Framing::Close => *response.version_mut() = Version::HTTP_10,
    }
    Ok(response)
}

struct Sending {
    archive: Arc<Archive>,
    transmission: Transmission,
    breaker: Breaker,
    at: u64,
}

impl Sending {
    async fn piece(mut self) -> io::Result<Option<(Bytes, Sending)>> {
        let end = self.transmission.end.map_or(self.archive.size(), |(at, _)| at);
        if self.at == end {
            return match self.transmission.end {
                None => Ok(None),
                Some((_, end)) => {
                    match end {
                        End::Stall => {}
                        End::Close => self.breaker.close(),
                        End::Reset => self.breaker.reset(),
                    }
                    // The connection breaks, or the client gives up.
                    std::future::pending().await
                }
            };
        }
        let mut length = (end - self.at).min(PIECE);
        if let Some(rate) = self.transmission.bytes_per_second {
            // Ten pieces a second, or a single byte as often as the rate allows.
            length = length.min(u64::from(rate.get() / 10).max(1));
            tokio::time::sleep(Duration::from_secs_f64(length as f64 / f64::from(rate.get()))).await;
        }
        let mut piece = self.archive.clone().read(self.at, length as usize).await?;
        if let Some((offset, mask)) = self.transmission.flip
            && (self.at..self.at + length).contains(&offset)
        {
            let mut flipped = piece.to_vec();
            flipped[(offset - self.at) as usize] ^= mask;
            piece = flipped.into();
        }
        self.at += length;
        Ok(Some((piece, self)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_response_is_complete_and_takes_as_long_as_its_rate() {
        for (rate, size) in [(3, 700), (1000, 20_000)] {
            let truth = Bytes::from_iter((0..size).map(|n: u32| n as u8));
            let slow = Transmission { bytes_per_second: NonZeroU32::new(rate), ..Transmission::of("application/gzip") };
            let started = Instant::now();
            let response = send(Arc::new(Archive::Memory(truth.clone())), slow, Breaker::default()).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            assert!(body == truth);
            let (took, expected) = (started.elapsed().as_secs_f64(), f64::from(size) / f64::from(rate));
            assert!((expected * 0.95..expected * 1.05).contains(&took), "{took} s for {expected} s");
        }
    }
}
