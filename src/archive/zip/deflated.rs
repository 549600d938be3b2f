//! Deflated data of an entry, and where it ends.
//!
//! This file must not know the headers of an entry, nor threads.

use crate::archive::{Rejection, inflate::Inflater, input::at_most, meter::Meter};

/// Deflated data being read.
pub(super) struct Deflated {
    /// Bytes left, if the size is known. The stream marks its end, too, and both must agree.
    left: Option<u64>,
}

impl Deflated {
    pub(super) fn of_size(bytes: u64) -> Deflated {
        Deflated { left: Some(bytes) }
    }

    pub(super) fn of_unknown_size() -> Deflated {
        Deflated { left: None }
    }

    /// Takes bytes from the front of `input`, and passes the output to `see`; returns whether the data has ended.
    pub(super) fn read(
        &mut self,
        inflater: &mut Inflater,
        input: &mut &[u8],
        meter: &mut Meter,
        mut see: impl FnMut(&[u8]),
    ) -> Result<bool, Rejection> {
        let available = self.left.map_or(input.len(), |left| at_most(left, input.len()));
        let mut rest = &input[..available];
        let ended = inflater.inflate(&mut rest, meter, |bytes| {
            see(bytes);
            Ok(())
        })?;
        let taken = available - rest.len();
        *input = &input[taken..];
        self.left = self.left.map(|left| left - taken as u64);
        match (ended, self.left) {
            (true, None | Some(0)) => Ok(true),
            (true, Some(left)) => Err(Rejection::corrupt(format!("{left} bytes of its data are not deflated data"))),
            (false, Some(0)) => Err(Rejection::corrupt("its deflate stream is not complete")),
            (false, _) => Ok(false),
        }
    }
}
