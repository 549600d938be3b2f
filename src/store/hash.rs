//! SHA-256 of stored bytes, in lower-case hex.
//!
//! This file owns hashing of what is at a destination already. It must not know where the bytes are.

use std::io::{self, Read};

use bytes::Bytes;
use futures::{TryStreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};

use super::error::StoreError;

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;

/// Hash of a stream's bytes.
pub(super) async fn of_stream(mut bytes: BoxStream<'_, Result<Bytes, StoreError>>) -> Result<String, StoreError> {
    let mut hash = Sha256::new();
    while let Some(chunk) = bytes.try_next().await? {
        hash.update(&chunk);
    }
    Ok(hex::encode(hash.finalize()))
}

/// Size and hash of all that `reader` has left.
pub(crate) fn of_reader(mut reader: impl Read) -> io::Result<(u64, String)> {
    let (mut size, mut hash, mut buffer) = (0, Sha256::new(), vec![0; READ_BYTES]);
    loop {
        let read = match reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok((size, hex::encode(hash.finalize())));
        }
        size += read as u64;
        hash.update(&buffer[..read]);
    }
}

/// What is wrong where the bytes with the hash `expected` should have been written.
pub(super) fn other_bytes(expected: &str, written: &str) -> String {
    format!("the verified bytes have the sha256 {expected}, the written bytes {written}")
}
