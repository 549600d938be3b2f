//! Passes on the contents of entries while they are verified.
//!
//! This file must not know the formats, or where contents go.

/// What takes the contents: the position of an entry, counted from 0 in the order of [`super::Verified::entries`], and its
/// next bytes.
type Take = dyn FnMut(usize, &[u8]) + Send;

/// Takes the contents of all entries during a [`super::Pass`], or nothing. Contents are not verified before the pass ends.
#[derive(Default)]
pub struct Tap(Option<Box<Take>>);

impl Tap {
    /// Calls `take` on the thread that verifies.
    pub fn new(take: impl FnMut(usize, &[u8]) + Send + 'static) -> Tap {
        Tap(Some(Box::new(take)))
    }

    pub(super) fn pass_on(&mut self, entry: usize, bytes: &[u8]) {
        if let Some(take) = &mut self.0
            && !bytes.is_empty()
        {
            take(entry, bytes);
        }
    }
}
