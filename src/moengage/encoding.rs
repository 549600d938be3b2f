//! `Content-Encoding: gzip`, which a server may mean in two ways: that it packed the archive for the journey, or that
//! the archive is itself a gzip.
//!
//! This file owns telling them apart: the layer is taken off only if another archive is inside. It must not know
//! where the bytes come from.

use std::{collections::VecDeque, io, io::Write, mem};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

/// Output is handed on from this many bytes; one more step of the decoder adds at most its own 32 KiB buffer.
const ENOUGH: usize = 192 * 1024;

/// Most of the input the decoder is given at once while looking inside, so that a bomb cannot swell there.
const PROBE_STEP: usize = 512;

/// A gzip that shows nothing of its inside within so many bytes is left as it is.
const PROBE_LIMIT: usize = 256 * 1024;

/// The bytes of a body on their way through: [`feed`](Layer::feed) what came, take [`next`](Layer::next) until it is
/// empty, and [`end`](Layer::end) when nothing more comes.
pub(super) enum Layer {
    /// The body is the archive.
    AsReceived(VecDeque<Bytes>),
    /// Labelled gzip, and what is inside is not seen yet.
    Undecided { received: VecDeque<Bytes>, probe: Box<MultiGzDecoder<Vec<u8>>> },
    /// Packed for the journey.
    Gzip { received: VecDeque<Bytes>, decoder: Box<MultiGzDecoder<Vec<u8>>> },
}

impl Layer {
    /// The layer that an answer's headers announce. Other encodings than one gzip were not asked for and are not
    /// known to be used: such bodies stay as they came, for the verifier to judge.
    pub(super) fn announced_by(headers: &HeaderMap) -> Self {
        let encodings: Vec<_> = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty() && name != "identity")
            .collect();
        match encodings.as_slice() {
            [only] if only == "gzip" || only == "x-gzip" => {
                Layer::Undecided { received: VecDeque::new(), probe: Box::new(MultiGzDecoder::new(Vec::new())) }
            }
            _ => Layer::as_received(),
        }
    }

    /// None that would be taken off.
    pub(super) fn as_received() -> Self {
        Layer::AsReceived(VecDeque::new())
    }

    /// Whether more must be fed before anything can be taken.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self, Layer::Undecided { .. })
    }

    /// Whether the bytes taken are others than those fed.
    pub(super) fn is_stripped(&self) -> bool {
        matches!(self, Layer::Gzip { .. })
    }

    /// Takes in what was received.
    pub(super) fn feed(&mut self, bytes: Bytes) {
        match self {
            Layer::AsReceived(received) | Layer::Gzip { received, .. } => received.push_back(bytes),
            Layer::Undecided { received, probe } => {
                received.push_back(bytes.clone());
                let inside = look(probe, &bytes);
                if let Some(archive) = inside {
                    self.decide(archive);
                } else if received.iter().map(Bytes::len).sum::<usize>() > PROBE_LIMIT {
                    self.decide(false);
                }
            }
        }
    }

    /// Nothing more comes. An error if the layer that was taken off is not whole.
    pub(super) fn end(&mut self) -> io::Result<()> {
        match self {
            Layer::AsReceived(_) => Ok(()),
            // Too short to hold any archive.
            Layer::Undecided { .. } => {
                self.decide(false);
                Ok(())
            }
            Layer::Gzip { decoder, .. } => decoder.try_finish(),
        }
    }

    /// The next bytes, at most 256 KiB of inflated ones; `None` when more must be fed first. An error if the layer
    /// that is being taken off is damaged.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Layer::AsReceived(received) => Ok(received.pop_front()),
            Layer::Undecided { .. } => Ok(None),
            Layer::Gzip { received, decoder } => {
                while let Some(first) = received.front_mut() {
                    if first.is_empty() {
                        received.pop_front();
                        continue;
                    }
                    if decoder.get_ref().len() >= ENOUGH {
                        break;
                    }
                    match decoder.write(first)? {
                        0 => return Err(io::Error::new(io::ErrorKind::InvalidData, "data after the end")),
                        taken => first.advance(taken),
                    }
                }
                let inflated = mem::take(decoder.get_mut());
                Ok((!inflated.is_empty()).then(|| inflated.into()))
            }
        }
    }

    fn decide(&mut self, archive_inside: bool) {
        if let Layer::Undecided { received, .. } = self {
            let received = mem::take(received);
            *self = if archive_inside {
                Layer::Gzip { received, decoder: Box::new(MultiGzDecoder::new(Vec::new())) }
            } else {
                Layer::AsReceived(received)
            };
        }
    }
}

/// Whether an archive is inside; `None` as long as that cannot be told.
fn look(probe: &mut MultiGzDecoder<Vec<u8>>, mut bytes: &[u8]) -> Option<bool> {
    while !bytes.is_empty() {
        let step = &bytes[..bytes.len().min(PROBE_STEP)];
        let taken = match probe.write(step).and_then(|taken| probe.flush().map(|()| taken)) {
            // Not a gzip, or a damaged one: the verifier will say.
            Err(_) | Ok(0) => return Some(false),
            Ok(taken) => taken,
        };
        bytes = &bytes[taken..];
        match probe.get_ref().as_slice() {
            [] | [0x1f] | [b'P'] | [b'P', b'K'] | [b'P', b'K', 3 | 5] => {}
            [0x1f, 0x8b, ..] | [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => return Some(true),
            _ => return Some(false),
        }
    }
    None
}
