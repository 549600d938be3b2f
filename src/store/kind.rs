//! The two kinds of destination: a directory and an object store.

/// Something that exists once for a directory and once for an object store.
pub(super) enum Kind<L, R> {
    Local(L),
    Remote(R),
}

/// Evaluates the same expression for either [`Kind`].
macro_rules! for_kind {
    ($kind:expr, $inner:pat => $call:expr) => {
        match $kind {
            $crate::store::kind::Kind::Local($inner) => $call,
            $crate::store::kind::Kind::Remote($inner) => $call,
        }
    };
}
pub(super) use for_kind;
