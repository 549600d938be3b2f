//! moengage
