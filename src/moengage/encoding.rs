//! `Content-Encoding: gzip`, and `Transfer-Encoding: gzip`, which a server may mean in two ways: that it packed the
//! archive for transport, or that the archive is itself a gzip.
//!
//! This file owns that distinction: each layer that is announced is taken off if it is there and another archive is
//! inside. It must not know where the bytes come from.

use std::{collections::VecDeque, io, io::Write, mem};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, TRANSFER_ENCODING};

use crate::magic::{self, Magic};

/// Output is handed on from this many bytes; one more step of the decoder adds at most its own 32 KiB buffer.
const ENOUGH: usize = 192 * 1024;

/// Most of the input the decoder is given at once while looking inside, so that a bomb cannot swell there.
const PROBE_STEP: usize = 512;

/// A gzip that shows nothing of its inside within this many bytes is left as it is.
const PROBE_LIMIT: usize = 256 * 1024;

/// Most layers that are taken off. Servers and proxies in a row have been seen to add two.
pub(super) const MOST_LAYERS: usize = 4;

/// What a gzip that the server announces around a body means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnnouncedGzip {
    /// An encoding for transport: it is undone.
    Transport,
    /// A part of the archive: the bytes stay as received. A damaged gzip, which cannot be undone, is kept as evidence so.
    Archive,
}

/// The bytes of a body on their way through: [`feed`](Layers::feed) what came, take [`next`](Layers::next) until it is
/// empty, and [`end`](Layers::end) when nothing more comes.
pub(super) struct Layers {
    /// The outermost first; what comes out of one goes into the next. The last one's are the archive's.
    layers: Vec<Layer>,
    /// How many of them have been ended.
    ended: usize,
    /// Whether nothing more comes to the first.
    body_ended: bool,
}

impl Layers {
    /// The layers that an answer's headers announce. Other encodings than gzip were not asked for and are not known to be
    /// used: what has one around it stays as it is, for the verifier to judge.
    ///
    /// # Errors
    ///
    /// The number of layers, where it is absurd.
    pub(super) fn announced_by(headers: &HeaderMap) -> Result<Self, usize> {
        // In the order in which they were put around the archive (RFC 9110, 8.4; RFC 9112, 6.1).
        let values = headers.get_all(CONTENT_ENCODING).iter().chain(headers.get_all(TRANSFER_ENCODING));
        let encodings: Vec<_> = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !matches!(name.as_str(), "" | "identity" | "chunked"))
            .collect();
        let layers = encodings.iter().rev().take_while(|name| matches!(name.as_str(), "gzip" | "x-gzip")).count();
        match layers {
            0 => Ok(Self::as_received()),
            1..=MOST_LAYERS => Ok(Self::of((0..layers).map(|_| Layer::announced()).collect())),
            _ => Err(layers),
        }
    }

    /// None that would be taken off.
    pub(super) fn as_received() -> Self {
        Self::of(vec![Layer::AsReceived(VecDeque::new())])
    }

    fn of(layers: Vec<Layer>) -> Self {
        Self { layers, ended: 0, body_ended: false }
    }

    /// Whether more must be fed before anything can be taken.
    pub(super) fn is_undecided(&self) -> bool {
        self.layers.iter().any(Layer::is_undecided)
    }

    /// Whether the bytes taken are others than those fed.
    pub(super) fn is_stripped(&self) -> bool {
        self.layers.iter().any(Layer::is_stripped)
    }

    /// Takes in what was received. An error if a layer that is being taken off is damaged.
    pub(super) fn feed(&mut self, bytes: Bytes) -> io::Result<()> {
        self.layers[0].feed(bytes);
        self.settle()
    }

    /// Nothing more comes. An error if a layer that was taken off is not whole, here or when its last bytes are taken.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.body_ended = true;
        self.settle()
    }

    /// The next bytes, at most 256 KiB of inflated ones; `None` when more must be fed first, or nothing more comes. An
    /// error if a layer that is being taken off is damaged.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.next_of(self.layers.len() - 1)
    }

    /// Lets every layer see enough to know whether it is there, as far as what was fed reaches.
    fn settle(&mut self) -> io::Result<()> {
        for inner in 0..self.layers.len() {
            while self.layers[inner].is_undecided() {
                let outer = if inner == 0 { None } else { self.next_of(inner - 1)? };
                match outer {
                    Some(bytes) => self.layers[inner].feed(bytes),
                    None if self.is_to_end(inner) => self.end_of(inner)?,
                    None => return Ok(()),
                }
            }
        }
        Ok(())
    }

    fn next_of(&mut self, layer: usize) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.layers[layer].next()? {
                return Ok(Some(bytes));
            }
            let outer = if layer == 0 { None } else { self.next_of(layer - 1)? };
            match outer {
                Some(bytes) => self.layers[layer].feed(bytes),
                None if self.is_to_end(layer) => self.end_of(layer)?,
                None => return Ok(None),
            }
        }
    }

    /// Whether nothing more comes to this layer, and it has not been ended.
    fn is_to_end(&self, layer: usize) -> bool {
        self.ended == layer && self.body_ended
    }

    fn end_of(&mut self, layer: usize) -> io::Result<()> {
        self.ended = layer + 1;
        self.layers[layer].end()
    }
}

/// One layer, which may not be there.
enum Layer {
    /// The body is the archive.
    AsReceived(VecDeque<Bytes>),
    /// Labelled gzip, and what is inside is not seen yet.
    Undecided { received: VecDeque<Bytes>, probe: Box<MultiGzDecoder<Vec<u8>>> },
    /// Packed for transport.
    Gzip { received: VecDeque<Bytes>, decoder: Box<MultiGzDecoder<Vec<u8>>> },
}

impl Layer {
    /// One of which it is to be seen whether it is there.
    fn announced() -> Self {
        Layer::Undecided { received: VecDeque::new(), probe: Box::new(MultiGzDecoder::new(Vec::new())) }
    }

    /// Whether more must be fed before anything can be taken.
    fn is_undecided(&self) -> bool {
        matches!(self, Layer::Undecided { .. })
    }

    /// Whether the bytes taken are others than those fed.
    fn is_stripped(&self) -> bool {
        matches!(self, Layer::Gzip { .. })
    }

    /// Takes in what was received.
    fn feed(&mut self, bytes: Bytes) {
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
    fn end(&mut self) -> io::Result<()> {
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
    fn next(&mut self) -> io::Result<Option<Bytes>> {
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

/// Whether an archive is inside; `None` as long as that is undecided.
fn look(probe: &mut MultiGzDecoder<Vec<u8>>, mut bytes: &[u8]) -> Option<bool> {
    while !bytes.is_empty() {
        let step = &bytes[..bytes.len().min(PROBE_STEP)];
        let taken = match probe.write(step).and_then(|taken| probe.flush().map(|()| taken)) {
            // Not a gzip, or a damaged one: the verifier will say.
            Err(_) | Ok(0) => return Some(false),
            Ok(taken) => taken,
        };
        bytes = &bytes[taken..];
        match magic::recognise(probe.get_ref()) {
            None => {}
            Some(Magic::Zip | Magic::Gzip | Magic::Tar | Magic::Unsupported(_)) => return Some(true),
            Some(Magic::Unknown) => return Some(false),
        }
    }
    None
}
