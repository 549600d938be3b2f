//! Derived objects that are written one by one, by threads that may block, and get their names together.
//!
//! This file owns which of them wait for their names: those of a directory, where one wait for the disk serves many. An
//! object store gives each its name at once, because bytes on their way to it take memory. It must not know what is in
//! them.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
};

use bytes::Bytes;
use object_store::path::Path as Key;
use tokio::sync::mpsc;

use super::{
    Route, StoreError,
    destination::Destination,
    kind::Kind,
    local::{BatchFile, BatchWriter, Content, FileBatch},
    upload::{Sealed, Upload},
};

/// Bytes that are passed on to an object store at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that may wait for an object store.
const CHUNKS_WAITING: usize = 4;

/// Objects that get their names together.
pub struct Batch {
    destination: Destination,
    /// The files of a directory.
    files: Option<Arc<FileBatch>>,
}

/// The bytes of one object while they are written. Each call blocks.
pub struct BatchObject(Kind<BatchWriter, Chunks>);

/// The other end of a [`BatchObject`], which must be awaited beside the writing.
pub struct Incoming {
    key: Key,
    /// To an object store.
    upload: Option<(Upload, mpsc::Receiver<Bytes>)>,
    destination: Destination,
}

/// All bytes of an object, without its name. Dropped, nothing is left of them.
pub struct Unnamed {
    key: Key,
    bytes: Kind<BatchFile, Upload>,
}

/// What a batch gives a name.
pub enum Named {
    /// An object.
    Object(Box<Unnamed>),
    /// A small object: its key and its bytes.
    Small(String, Vec<u8>),
}

impl Destination {
    /// Begins objects that get their names together.
    ///
    /// # Errors
    ///
    /// The destination cannot be read.
    pub async fn batch(&self) -> Result<Batch, StoreError> {
        let files = match self.backend() {
            Kind::Local(local) => Some(Arc::new(local.batch().await?)),
            Kind::Remote(_) => None,
        };
        Ok(Batch { destination: self.clone(), files })
    }
}

impl Batch {
    /// Whether each object has to be given its name before the next is written.
    pub fn names_at_once(&self) -> bool {
        self.files.is_none()
    }

    /// Begins the object at `key`.
    ///
    /// # Errors
    ///
    /// It is not the key of a derived object.
    pub fn object(&self, key: &str) -> Result<(BatchObject, Incoming), StoreError> {
        let destination = self.destination.clone();
        let derived = destination.derived_key("write", key)?;
        let Some(files) = &self.files else {
            let upload = destination.stage(Route::Direct(key), None)?;
            let (chunks, received) = mpsc::channel(CHUNKS_WAITING);
            let object = BatchObject(Kind::Remote(Chunks { chunks, gathered: Vec::with_capacity(CHUNK_BYTES) }));
            return Ok((object, Incoming { key: derived, upload: Some((upload, received)), destination }));
        };
        Ok((BatchObject(Kind::Local(files.writer())), Incoming { key: derived, upload: None, destination }))
    }

    /// Gives each its name, in this order, replacing an object there.
    ///
    /// # Errors
    ///
    /// The destination refused. Each key has the old object or the new one, and the first keys have the new ones.
    pub async fn name_all(&self, named: Vec<Named>) -> Result<(), StoreError> {
        let mut contents = Vec::new();
        for named in named {
            let (key, content) = match named {
                Named::Object(object) => {
                    let Unnamed { key, bytes } = *object;
                    match bytes {
                        Kind::Local(file) => (key, Content::File(file)),
                        Kind::Remote(upload) => {
                            upload.place(&key).await?;
                            continue;
                        }
                    }
                }
                Named::Small(key, bytes) => (self.destination.derived_key("write", &key)?, Content::Bytes(bytes)),
            };
            match (self.destination.backend(), content) {
                (Kind::Remote(bucket), Content::Bytes(bytes)) => bucket.put("write", &key, bytes).await?,
                (_, content) => contents.push((content, key)),
            }
        }
        match (self.destination.backend(), &self.files) {
            (Kind::Local(local), Some(files)) if !contents.is_empty() => local.name_all(files, contents).await,
            _ => Ok(()),
        }
    }
}

impl Incoming {
    /// Takes the bytes to the destination as they are written. Ends after the last, or with the destination's failure, after
    /// which no more can be written.
    ///
    /// # Errors
    ///
    /// The destination refused.
    pub async fn receive(mut self) -> Result<Incoming, StoreError> {
        if let Some((upload, received)) = &mut self.upload {
            while let Some(chunk) = received.recv().await {
                upload.write(chunk).await.inspect_err(|_| received.close())?;
            }
        }
        Ok(self)
    }

    /// The object, once all bytes have been received and `object` has ended.
    ///
    /// # Errors
    ///
    /// Some bytes could not be written.
    pub async fn complete(self, object: io::Result<Ended>) -> Result<(Unnamed, Sealed), StoreError> {
        let Incoming { key, upload, destination } = self;
        match (destination.backend(), object, upload) {
            (_, Ok(Ended(Some(file))), _) => {
                let sealed = Sealed { size: file.size, sha256: file.sha256.clone() };
                Ok((Unnamed { key, bytes: Kind::Local(file) }, sealed))
            }
            (_, Ok(Ended(None)), Some((mut upload, _))) => {
                let sealed = upload.seal().await?;
                Ok((Unnamed { key, bytes: Kind::Remote(upload) }, sealed))
            }
            (_, Err(error), _) => Err(destination.reporter().io("write", key.as_ref(), &error)),
            (_, Ok(Ended(None)), None) => {
                Err(destination.reporter().text("write", key.as_ref(), "it has no bytes".to_owned()))
            }
        }
    }
}

/// An object all of whose bytes have been passed on.
pub struct Ended(Option<BatchFile>);

impl BatchObject {
    /// Ends the object. Blocks.
    ///
    /// # Errors
    ///
    /// Some bytes could not be written: the first such error.
    pub fn end(self) -> io::Result<Ended> {
        match self.0 {
            Kind::Local(writer) => writer.finish().map(|file| Ended(Some(file))),
            Kind::Remote(mut chunks) => chunks.flush().map(|()| Ended(None)),
        }
    }
}

impl Write for BatchObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Local(writer) => writer.write(bytes),
            Kind::Remote(chunks) => chunks.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Local(writer) => writer.flush(),
            Kind::Remote(chunks) => chunks.flush(),
        }
    }
}

/// Passes bytes on in chunks.
struct Chunks {
    chunks: mpsc::Sender<Bytes>,
    gathered: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = mem::replace(&mut self.gathered, Vec::with_capacity(CHUNK_BYTES));
        self.chunks.blocking_send(chunk.into()).map_err(|_| io::Error::other("the destination takes no more bytes"))
    }
}
