//! A destination in an object store: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! This file owns how an object appears under a free key, once and whole, although stores retry, lose replies and
//! differ in what they refuse. It must not know what the bytes are.

use std::{
    collections::HashMap,
    fs,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    BackoffConfig, Certificate, ClientOptions, CopyOptions, Error, MultipartId, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    multipart::{MultipartStore, PartId},
    path::Path as Key,
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Mutex, OnceCell},
    task::JoinSet,
};

use super::{
    Capabilities, Commit, STAGING, StoreError,
    budget::{Frozen, Part, Share},
    credentials::{AWS, AZURE, Cloud, GOOGLE, OfMachine, metadata_retry},
    error::Reporter,
    upload::part_bytes,
};
use crate::config;

/// Parts of one upload in flight, besides the one being filled.
const PARTS_IN_FLIGHT: usize = 2;

/// Largest object that S3 copies in one request.
const COPY_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// How often a put is tried when the store says that another writer was there and then nobody was.
const PUT_TRIES: usize = 3;

/// Client settings unless the environment or the destination's options say otherwise. object_store's own is 30 s for a
/// whole request, too short for a part over a slow line; a stalled connection is noticed by the read timeout.
const CLIENT_DEFAULTS: [(&str, &str); 3] =
    [("timeout", "15 minutes"), ("connect_timeout", "10 seconds"), ("read_timeout", "2 minutes")];

/// Ends the name of the note under `_staging/` that says which multipart upload is under way.
const NOTE: &str = ".multipart.json";

/// Numbers staged objects; process-wide, so that two destinations over one bucket don't meet.
static NEXT_STAGED: AtomicU64 = AtomicU64::new(0);

/// The bucket, or folder of one, of an object store's destination.
pub(super) struct Bucket {
    objects: Arc<dyn ObjectStore>,
    multiparts: Arc<dyn MultipartStore>,
    /// The folder; root for the whole bucket.
    folder: Key,
    holder: String,
    reporter: Arc<Reporter>,
    /// Found by a probe before the first put.
    capabilities: OnceCell<Capabilities>,
    /// One writer a key within this process, where looking and writing are two steps. Keys share these by hash.
    writing: [Mutex<()>; 64],
    copy_bytes: u64,
}

/// Says which multipart upload to abort should its process die, since stores don't tell.
#[derive(Serialize, Deserialize)]
struct Note {
    key: String,
    upload: MultipartId,
}

/// What was found at a key, compared with what is to be there.
#[derive(PartialEq, Eq)]
enum Found {
    Nothing,
    Same,
    Other,
}

macro_rules! open {
    ($builder:ty, $option:ty, $cloud:expr, $destination:expr, $client:expr, $fail:expr) => {{
        let cloud: &'static Cloud = $cloud;
        let mut builder =
            <$builder>::from_env().with_client_options($client).with_url($destination.url.as_str()).with_retry(retry());
        // Again, because these client options have replaced those that the environment sets.
        for (name, value) in cloud.variables() {
            if let Ok(option) = name.parse::<$option>() {
                builder = builder.with_config(option, value);
            }
        }
        for (name, value) in CLIENT_DEFAULTS {
            if std::env::var_os(format!("{}{}", cloud.environment, name.to_ascii_uppercase())).is_none() {
                builder = builder.with_config(name.parse::<$option>().map_err(|error| $fail(&error))?, value);
            }
        }
        for (name, value) in &$destination.options {
            let option = name.to_ascii_lowercase().parse::<$option>().map_err(|error| $fail(&error))?;
            builder = builder.with_config(option, value.expose_secret());
        }
        let value = |name: &str| builder.get_config_value(&name.parse::<$option>().ok()?);
        if cloud.has_no_source(value) {
            tracing::info!(
                destination = $destination.name,
                "no credentials in its options or the environment: this machine's metadata address will be asked"
            );
            let machine = builder.clone().with_retry(metadata_retry()).build().map_err(|error| $fail(&error))?;
            builder = builder.with_credentials(Arc::new(OfMachine::new(Arc::clone(machine.credentials()), cloud)));
        }
        Arc::new(builder.build().map_err(|error| $fail(&error))?)
    }};
}

fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(10), base: 3.0 };
    RetryConfig { backoff, max_retries: 5, retry_timeout: Duration::from_secs(2 * 60) }
}

impl Bucket {
    pub(super) fn open(
        destination: &config::Destination,
        reporter: Arc<Reporter>,
        holder: &str,
    ) -> Result<Self, StoreError> {
        let url = &destination.url;
        let fail = |error: &Error| reporter.remote("open", "", error);
        let refuse = |cause: &str| reporter.text("open", "", cause.to_owned());
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(refuse("its URL must not hold credentials or a query; those belong into `options`"));
        }
        let mut client = ClientOptions::default();
        if let Some(file) = &destination.ca_file {
            let authorities = fs::read(&file.path)
                .map_err(|error| error.to_string())
                .and_then(|pem| Certificate::from_pem_bundle(&pem).map_err(|error| error.to_string()));
            let authorities = authorities.map_err(|error| {
                refuse(&file.problem(format_args!("{} cannot be used: {error}", file.path.display())).to_string())
            })?;
            client = authorities.into_iter().fold(client, ClientOptions::with_root_certificate);
        }
        let folder = Key::from_url_path(url.path()).map_err(|error| refuse(&error.to_string()))?;
        let (objects, multiparts): (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) = match url.scheme() {
            "s3" => {
                let store = open!(AmazonS3Builder, AmazonS3ConfigKey, &AWS, destination, client, fail);
                (Arc::clone(&store) as _, store)
            }
            "gs" => {
                let store = open!(GoogleCloudStorageBuilder, GoogleConfigKey, &GOOGLE, destination, client, fail);
                (Arc::clone(&store) as _, store)
            }
            "az" => {
                let store = open!(MicrosoftAzureBuilder, AzureConfigKey, &AZURE, destination, client, fail);
                (Arc::clone(&store) as _, store)
            }
            scheme => return Err(refuse(&format!("`{scheme}://` is not one of file://, s3://, gs://, az://"))),
        };
        Ok(Self::over(objects, multiparts, folder, reporter, holder))
    }

    fn over(
        objects: Arc<dyn ObjectStore>,
        multiparts: Arc<dyn MultipartStore>,
        folder: Key,
        reporter: Arc<Reporter>,
        holder: &str,
    ) -> Self {
        Bucket {
            objects,
            multiparts,
            folder,
            holder: holder.to_owned(),
            reporter,
            capabilities: OnceCell::new(),
            writing: std::array::from_fn(|_| Mutex::new(())),
            copy_bytes: COPY_BYTES,
        }
    }

    /// Writes, reads, lists and deletes a probe, and reads what is not there. Always the same one, written over only where
    /// the store cannot refuse that: where nothing may be deleted or overwritten, each process leaves one and can go on.
    pub(super) async fn probe(&self) -> Result<Capabilities, StoreError> {
        let key = join([STAGING, &self.holder, "probe"]);
        let _writing = self.writing(&key).lock().await;
        let fail = |error| self.fail("probe", &key, &error);
        let create = async |text| {
            self.objects.put_opts(&self.at(&key), PutPayload::from_static(text), PutMode::Create.into()).await
        };
        match create(b"probe").await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) if knows_no_conditions(&error) => {
                self.objects.put(&self.at(&key), PutPayload::from_static(b"probe")).await.map_err(fail)?;
            }
            Err(error) => return Err(fail(error)),
        }
        let result = async {
            let read = self.objects.get(&self.at(&key)).await.map_err(fail)?.bytes().await.map_err(fail)?;
            if read.as_ref() != b"probe" {
                return Err(self.reporter.text("probe", key.as_ref(), "other bytes were read than written".to_owned()));
            }
            self.may_list(&key).await?;
            match create(b"other").await {
                Ok(_) => Ok(false),
                // Written a moment ago, so it is overwriting that is not permitted.
                Err(Error::AlreadyExists { .. } | Error::PermissionDenied { .. }) => Ok(true),
                Err(error) if knows_no_conditions(&error) => Ok(false),
                Err(error) => Err(fail(error)),
            }
        };
        let result = result.await;
        let deletes = self.delete("delete", &key).await.is_ok();
        Ok(Capabilities { refuses_overwrite: result?, deletes, forces_names: true, is_directory: false })
    }

    /// Lists what is beside `key` and looks for what is not there: where listing is not allowed, S3 answers 403 to that
    /// rather than 404, so that no report could be found missing.
    async fn may_list(&self, key: &Key) -> Result<(), StoreError> {
        // What refuses to list has no kind of its own in the library.
        let is_refusal = |error: &Error| {
            matches!(error, Error::PermissionDenied { .. }) || error.to_string().contains("403 Forbidden")
        };
        let refused = |operation, key: &Key, error: &Error| match is_refusal(error) {
            true => self.reporter.unlisted(operation, key.as_ref(), error),
            false => self.fail(operation, key, error),
        };
        let missing = join([STAGING, &self.holder, "none"]);
        match self.objects.head(&self.at(&missing)).await {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(refused("look for", &missing, &error)),
        }
        let folder = join([STAGING, &self.holder]);
        let mut listing = self.objects.list(Some(&self.at(&folder)));
        while let Some(found) = listing.next().await {
            if found.map_err(|error| refused("list", &folder, &error))?.location == self.at(key) {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&self.at(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fail("look at", key, &error)),
        }
    }

    pub(super) async fn read(
        self: &Arc<Self>,
        key: &Key,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, StoreError>>>, StoreError> {
        match self.objects.get(&self.at(key)).await {
            Ok(found) => {
                let (bucket, key) = (Arc::clone(self), key.clone());
                Ok(Some(found.into_stream().map_err(move |error| bucket.fail("read", &key, &error)).boxed()))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fail("read", key, &error)),
        }
    }

    /// The first `limit` bytes of the object at `key`, or a few more; `None` when there is none.
    pub(super) async fn read_up_to(self: &Arc<Self>, key: &Key, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut chunks) = self.read(key).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < limit
            && let Some(chunk) = chunks.try_next().await?
        {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// Every key below `prefix`.
    pub(super) async fn keys(&self, prefix: &Key) -> Result<Vec<String>, StoreError> {
        let mut listing = self.objects.list(Some(&self.at(prefix)));
        let mut keys = Vec::new();
        while let Some(meta) = listing.try_next().await.map_err(|error| self.fail("list", prefix, &error))? {
            if let Some(key) = self.key_of(&meta.location) {
                keys.push(key.into());
            }
        }
        Ok(keys)
    }

    pub(super) async fn replace(&self, key: &Key, bytes: PutPayload) -> Result<(), StoreError> {
        let put = self.objects.put(&self.at(key), bytes).await;
        put.map(drop).map_err(|error| self.fail("write", key, &error))
    }

    /// What the first probe found.
    async fn capabilities(&self) -> Result<&Capabilities, StoreError> {
        let probe = async || {
            let capabilities = self.probe().await?;
            if !capabilities.deletes {
                let destination = self.reporter.destination();
                tracing::warn!(destination, "reports can be stored, but leftovers below `{STAGING}` cannot be deleted");
            }
            Ok(capabilities)
        };
        self.capabilities.get_or_try_init(probe).await
    }

    /// Puts a small object under a key that must be free.
    pub(super) async fn put_new(
        &self,
        key: &Key,
        bytes: PutPayload,
        sha256: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        let size = bytes.content_length() as u64;
        let refuses = self.capabilities().await?.refuses_overwrite;
        let _writing = self.writing(key).lock().await;
        if !refuses {
            if let Some(commit) = self.compare(key, size, sha256).await?.commit(true) {
                return Ok(commit);
            }
            if !still_ours.await {
                return Ok(Commit::NotOurs);
            }
        }
        let mode = if refuses { PutMode::Create } else { PutMode::Overwrite };
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.objects.put_opts(&self.at(key), bytes.clone(), mode.clone().into()).await {
                Ok(_) => return Ok(Commit::Stored),
                Err(error) => error,
            };
            match (&error, self.compare(key, size, sha256).await) {
                (Error::AlreadyExists { .. }, found) => match found?.commit(true) {
                    Some(commit) => return Ok(commit),
                    // S3 also says so of two writers at once, either of whom may then fail.
                    None if tries < PUT_TRIES => {}
                    None => return Err(self.fail("store", key, &error)),
                },
                // The reply was lost, not the write.
                (_, Ok(Found::Same)) => return Ok(Commit::AlreadyThere),
                _ => return Err(self.fail("store", key, &error)),
            }
        }
    }

    /// Begins a multipart upload at `direct`, else under `_staging/`.
    pub(super) async fn start_multipart(self: &Arc<Self>, direct: Option<&Key>) -> Result<Multipart, StoreError> {
        let key = direct.cloned().unwrap_or_else(|| self.staged_key(""));
        Multipart::start(self, key, self.staged_key(NOTE)).await
    }

    /// Moves an object to a key that must be free or hold the same bytes.
    pub(super) async fn move_aside(self: &Arc<Self>, from: &Key, to: &Key, memory: &Share) -> Result<(), StoreError> {
        match self.size(from).await? {
            None if self.size(to).await?.is_some() => Ok(()),
            _ => {
                self.keep_as("move", from, to, memory).await?;
                self.delete("move", from).await
            }
        }
    }

    /// Copies the object at `from` to `to`, which must be free or hold the same bytes.
    pub(super) async fn keep_as(
        self: &Arc<Self>,
        operation: &'static str,
        from: &Key,
        to: &Key,
        memory: &Share,
    ) -> Result<(), StoreError> {
        let fail = |cause: &str| self.reporter.text(operation, &format!("{from}` to `{to}"), cause.to_owned());
        let Some(size) = self.size(from).await? else { return Err(fail("there is no such object")) };
        let _writing = self.writing(to).lock().await;
        if self.size(to).await?.is_none() {
            self.copy(from, to, size, memory).await
        } else if self.digest(from).await? != self.digest(to).await? {
            Err(fail("the new key holds other content"))
        } else {
            Ok(())
        }
    }

    /// Deletes what dead holders left under `_staging/` and aborts their multipart uploads.
    pub(super) async fn sweep(&self, is_dead: impl Fn(&str) -> bool) -> Result<u64, StoreError> {
        let staging = Key::from(STAGING);
        let mut dead = HashMap::new();
        let mut removed = 0;
        for key in self.keys(&staging).await? {
            let Some((holder, _)) = key.strip_prefix("_staging/").and_then(|rest| rest.split_once('/')) else {
                continue;
            };
            if !*dead.entry(holder.to_owned()).or_insert_with(|| is_dead(holder)) {
                continue;
            }
            let Ok(path) = Key::parse(&key) else { continue };
            if key.ends_with(NOTE)
                && let Some(note) = self.note(&path).await?
                && let Ok(upload_key) = Key::parse(&note.key)
                && let Err(error) = self.abort_multipart(&upload_key, &note.upload).await
            {
                // The note stays, so that the next sweep tries again.
                tracing::warn!("{error}");
                continue;
            }
            match self.delete("sweep", &path).await {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(removed)
    }

    async fn note(&self, key: &Key) -> Result<Option<Note>, StoreError> {
        let fail = |error| self.fail("read", key, &error);
        match self.objects.get(&self.at(key)).await {
            Ok(found) if found.meta.size > 64 * 1024 => Ok(None),
            Ok(found) => Ok(serde_json::from_slice(&found.bytes().await.map_err(fail)?).ok()),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    async fn abort_multipart(&self, key: &Key, upload: &MultipartId) -> Result<(), StoreError> {
        match self.multiparts.abort_multipart(&self.at(key), upload).await {
            // Not found: completed or aborted before.
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fail("abort the upload of", key, &error)),
        }
    }

    async fn delete(&self, operation: &'static str, key: &Key) -> Result<(), StoreError> {
        match self.objects.delete(&self.at(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fail(operation, key, &error)),
        }
    }

    /// Copies to a key that was free a moment ago. The caller holds [`Bucket::writing`] of `to`.
    async fn copy(self: &Arc<Self>, from: &Key, to: &Key, size: u64, memory: &Share) -> Result<(), StoreError> {
        if size > self.copy_bytes {
            return self.copy_through(from, to, size, memory).await;
        }
        match self.objects.copy_opts(&self.at(from), &self.at(to), CopyOptions::new()).await {
            Ok(()) => self.expect_size(to, size).await,
            Err(error) if is_unsupported(&error) => self.copy_through(from, to, size, memory).await,
            Err(error) => Err(self.fail("copy to", to, &error)),
        }
    }

    /// Copies by reading and writing, where the store can't.
    async fn copy_through(self: &Arc<Self>, from: &Key, to: &Key, size: u64, memory: &Share) -> Result<(), StoreError> {
        let mut multipart = Multipart::start(self, to.clone(), self.staged_key(NOTE)).await?;
        let Some(mut chunks) = self.read(from).await? else {
            return Err(self.reporter.text("copy", from.as_ref(), "there is no such object".to_owned()));
        };
        let mut position = 0;
        let mut part: Option<Part> = None;
        while let Some(mut chunk) = chunks.try_next().await? {
            while !chunk.is_empty() {
                let capacity = part_bytes(position, Some(size)).unwrap_or(super::PART_BYTES);
                let filling = match &mut part {
                    Some(filling) => filling,
                    None => part.insert(memory.copying(capacity).await),
                };
                let before = chunk.len();
                filling.fill(&mut chunk);
                position += (before - chunk.len()) as u64;
                if filling.is_full()
                    && let Some(full) = part.take()
                {
                    multipart.push(full).await?;
                }
            }
        }
        multipart.push_last(part).await?;
        multipart.complete().await?;
        self.expect_size(to, size).await
    }

    async fn expect_size(&self, key: &Key, size: u64) -> Result<(), StoreError> {
        match self.size(key).await? {
            Some(found) if found == size => Ok(()),
            found => {
                let found = found.map_or("nothing".to_owned(), |found| format!("{found} bytes"));
                let cause = format!("the store said it was done, but {found} instead of {size} bytes are there");
                Err(self.reporter.text("store", key.as_ref(), cause))
            }
        }
    }

    async fn compare(&self, key: &Key, size: u64, sha256: &str) -> Result<Found, StoreError> {
        match self.size(key).await? {
            None => Ok(Found::Nothing),
            Some(found) if found != size => Ok(Found::Other),
            Some(_) => Ok(match self.digest(key).await? {
                None => Found::Nothing,
                Some(found) if found == sha256 => Found::Same,
                Some(_) => Found::Other,
            }),
        }
    }

    /// SHA-256 of an object, read in full.
    async fn digest(&self, key: &Key) -> Result<Option<String>, StoreError> {
        let fail = |error| self.fail("read", key, &error);
        let found = match self.objects.get(&self.at(key)).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(fail)?,
        };
        let mut chunks = found.into_stream();
        let mut hash = Sha256::new();
        while let Some(chunk) = chunks.try_next().await.map_err(fail)? {
            hash.update(&chunk);
        }
        Ok(Some(hex::encode(hash.finalize())))
    }

    fn writing(&self, key: &Key) -> &Mutex<()> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        &self.writing[hasher.finish() as usize % self.writing.len()]
    }

    fn staged_key(&self, suffix: &str) -> Key {
        let number = NEXT_STAGED.fetch_add(1, Ordering::Relaxed);
        join([STAGING, &self.holder, &format!("{number}{suffix}")])
    }

    /// A key as the store knows it.
    fn at(&self, key: &Key) -> Key {
        join(self.folder.parts().chain(key.parts()))
    }

    /// The key of a place in the store; `None` for one outside the folder.
    fn key_of(&self, location: &Key) -> Option<Key> {
        Some(join(location.prefix_match(&self.folder)?))
    }

    fn fail(&self, operation: &'static str, key: &Key, error: &Error) -> StoreError {
        self.reporter.remote(operation, key.as_ref(), error)
    }
}

/// Joins parts of keys as they are; `Key::from_iter` would percent-encode them anew.
fn join(parts: impl IntoIterator<Item = impl AsRef<str>>) -> Key {
    let parts: Vec<String> = parts.into_iter().map(|part| part.as_ref().to_owned()).collect();
    #[expect(clippy::expect_used, reason = "parts of keys make a key")]
    Key::parse(parts.join("/")).expect("parts of keys make a key")
}

impl Found {
    /// How a commit ends that found this; `None` when the key is free.
    fn commit(self, kept: bool) -> Option<Commit> {
        match self {
            Found::Nothing => None,
            Found::Same => Some(Commit::AlreadyThere),
            Found::Other => Some(Commit::Taken { kept }),
        }
    }
}

/// Whether the store doesn't know how to, rather than failed. Some say so by a status of 501.
fn is_unsupported(error: &Error) -> bool {
    match error {
        Error::NotSupported { .. } | Error::NotImplemented { .. } => true,
        Error::Generic { .. } => {
            let text = error.to_string();
            text.contains("501 Not Implemented") || text.contains("<Code>NotImplemented</Code>")
        }
        _ => false,
    }
}

/// Whether a conditional put may have been refused for its condition: not supported, or, by some stores, called an invalid
/// argument. Whether it was shows the same put without one.
fn knows_no_conditions(error: &Error) -> bool {
    is_unsupported(error)
        || matches!(error, Error::Generic { .. }) && error.to_string().contains("<Code>InvalidArgument</Code>")
}

/// A multipart upload under way. It is aborted when dropped, and a note under `_staging/` has it aborted by another
/// process should this one die.
pub(super) struct Multipart {
    bucket: Arc<Bucket>,
    key: Key,
    /// `None` once completed or aborted.
    upload: Option<MultipartId>,
    note: Key,
    sending: JoinSet<Result<(usize, PartId), Error>>,
    /// Parts begun; the id of each that has arrived.
    parts: Vec<Option<PartId>>,
}

impl Multipart {
    async fn start(bucket: &Arc<Bucket>, key: Key, note: Key) -> Result<Self, StoreError> {
        let fail = |error| bucket.fail("begin the upload of", &key, &error);
        let upload = bucket.multiparts.create_multipart(&bucket.at(&key)).await.map_err(fail)?;
        let text = serde_json::to_vec(&Note { key: key.to_string(), upload: upload.clone() });
        let multipart = Multipart {
            bucket: Arc::clone(bucket),
            key,
            upload: Some(upload),
            note,
            sending: JoinSet::new(),
            parts: Vec::new(),
        };
        let text = text.map_err(|error| bucket.reporter.text("note", multipart.note.as_ref(), error.to_string()))?;
        bucket.replace(&multipart.note, text.into()).await?;
        Ok(multipart)
    }

    pub(super) fn is_at(&self, key: &Key) -> bool {
        self.key == *key
    }

    /// Sends a part. It goes on in a task of its own, whatever the caller waits for next; its memory is
    /// free when it has arrived.
    pub(super) async fn push(&mut self, part: Part) -> Result<(), StoreError> {
        while self.sending.len() >= PARTS_IN_FLIGHT {
            self.arrive().await?;
        }
        let Some(upload) = self.upload.clone() else {
            return Err(self.bucket.reporter.text("store", self.key.as_ref(), "the upload is over".to_owned()));
        };
        let (multiparts, at, number) =
            (Arc::clone(&self.bucket.multiparts), self.bucket.at(&self.key), self.parts.len());
        self.parts.push(None);
        let part: Frozen = part.freeze();
        self.sending.spawn(async move {
            let sent = multiparts.put_part(&at, &upload, number, part.payload()).await;
            part.recycle();
            sent.map(|id| (number, id))
        });
        Ok(())
    }

    /// Sends what is left and waits until all parts have arrived.
    pub(super) async fn push_last(&mut self, part: Option<Part>) -> Result<(), StoreError> {
        if let Some(part) = part {
            self.push(part).await?;
        }
        while !self.sending.is_empty() {
            self.arrive().await?;
        }
        Ok(())
    }

    async fn arrive(&mut self) -> Result<(), StoreError> {
        let (number, id) = match self.sending.join_next().await {
            None => return Ok(()),
            Some(Ok(sent)) => sent.map_err(|error| self.bucket.fail("send a part of", &self.key, &error))?,
            Some(Err(failure)) => {
                return Err(self.bucket.reporter.text("send a part of", self.key.as_ref(), failure.to_string()));
            }
        };
        self.parts[number] = Some(id);
        Ok(())
    }

    /// Makes the object appear at its final key, if that is free. There is no conditional complete, so: looked at, the
    /// claim checked, completed.
    pub(super) async fn complete_new(
        mut self,
        size: u64,
        sha256: &str,
        still_ours: impl Future<Output = bool> + Send,
    ) -> Result<Commit, StoreError> {
        let bucket = Arc::clone(&self.bucket);
        let key = self.key.clone();
        let _writing = bucket.writing(&key).lock().await;
        if let Some(commit) = bucket.compare(&key, size, sha256).await?.commit(false) {
            self.abort().await;
            return Ok(commit);
        }
        if !still_ours.await {
            self.abort().await;
            return Ok(Commit::NotOurs);
        }
        match self.complete().await {
            Ok(()) => bucket.expect_size(&key, size).await.map(|()| Commit::Stored),
            // The reply was lost, not the write: a repeated completion is answered with "no such upload".
            Err(error) => match bucket.compare(&key, size, sha256).await {
                Ok(Found::Same) => {
                    self.forget().await;
                    Ok(Commit::AlreadyThere)
                }
                _ => Err(error),
            },
        }
    }

    /// Makes the object appear under `_staging/`.
    pub(super) async fn complete_staged(mut self, size: u64) -> Result<StagedObject, StoreError> {
        let (bucket, key) = (Arc::clone(&self.bucket), self.key.clone());
        let object = StagedObject { bucket: Some(Arc::clone(&bucket)), key: key.clone() };
        match self.complete().await {
            Ok(()) => bucket.expect_size(&key, size).await?,
            // The name is ours alone, so what has it is what we wrote.
            Err(error) => match bucket.size(&key).await {
                Ok(Some(found)) if found == size => self.forget().await,
                _ => return Err(error),
            },
        }
        Ok(object)
    }

    /// Completes at whatever is at the key. All parts have arrived.
    async fn complete(&mut self) -> Result<(), StoreError> {
        let Some(upload) = self.upload.clone() else { return Ok(()) };
        let parts: Option<Vec<PartId>> = self.parts.iter().cloned().collect();
        let fail =
            |cause: &str| self.bucket.reporter.text("complete the upload of", self.key.as_ref(), cause.to_owned());
        let parts = parts.ok_or_else(|| fail("a part has not arrived"))?;
        let completed = self.bucket.multiparts.complete_multipart(&self.bucket.at(&self.key), &upload, parts).await;
        completed.map_err(|error| self.bucket.fail("complete the upload of", &self.key, &error))?;
        self.upload = None;
        self.delete_note().await;
        Ok(())
    }

    /// Lets go of an upload whose object is there although completing it failed. It was ours that completed, most
    /// likely, so a refusal to abort it means nothing.
    async fn forget(&mut self) {
        if let Some(upload) = self.upload.take() {
            let _ = self.bucket.abort_multipart(&self.key, &upload).await;
            self.delete_note().await;
        }
    }

    /// A note left behind has the next sweep abort an upload that is over, which does nothing.
    async fn delete_note(&self) {
        if let Err(error) = self.bucket.delete("forget", &self.note).await {
            tracing::warn!("{error}");
        }
    }

    pub(super) async fn abort(mut self) {
        if let Some(upload) = self.upload.take() {
            let sending = std::mem::take(&mut self.sending);
            clean_up(Arc::clone(&self.bucket), self.key.clone(), upload, self.note.clone(), sending).await;
        }
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let sending = std::mem::take(&mut self.sending);
            runtime.spawn(clean_up(Arc::clone(&self.bucket), self.key.clone(), upload, self.note.clone(), sending));
        }
    }
}

/// Aborts a multipart upload, after its last part: one that arrives later would stay for ever.
async fn clean_up(
    bucket: Arc<Bucket>,
    key: Key,
    upload: MultipartId,
    note: Key,
    mut sending: JoinSet<Result<(usize, PartId), Error>>,
) {
    sending.shutdown().await;
    let cleaned = match bucket.abort_multipart(&key, &upload).await {
        Ok(()) => bucket.delete("forget", &note).await,
        Err(error) => Err(error),
    };
    if let Err(error) = cleaned {
        // The note stays for the next sweep.
        tracing::warn!("{error}");
    }
}

/// An object under `_staging/`, deleted when dropped.
pub(super) struct StagedObject {
    /// `None` once deleted.
    bucket: Option<Arc<Bucket>>,
    key: Key,
}

impl StagedObject {
    /// Copies the object to its final key, if that is free.
    pub(super) async fn copy_to(
        &self,
        to: &Key,
        size: u64,
        sha256: &str,
        still_ours: impl Future<Output = bool> + Send,
        memory: &Share,
    ) -> Result<Commit, StoreError> {
        let Some(bucket) = &self.bucket else { return Ok(Commit::Taken { kept: false }) };
        let _writing = bucket.writing(to).lock().await;
        if let Some(commit) = bucket.compare(to, size, sha256).await?.commit(true) {
            return Ok(commit);
        }
        if !still_ours.await {
            return Ok(Commit::NotOurs);
        }
        bucket.copy(&self.key, to, size, memory).await?;
        Ok(Commit::Stored)
    }

    /// Copies it to a key whatever is there.
    pub(super) async fn replace(&self, to: &Key, size: u64, memory: &Share) -> Result<(), StoreError> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let _writing = bucket.writing(to).lock().await;
        bucket.copy(&self.key, to, size, memory).await
    }

    pub(super) async fn delete(mut self) {
        if let Some(bucket) = self.bucket.take() {
            delete_staged(bucket, self.key.clone()).await;
        }
    }
}

impl Drop for StagedObject {
    fn drop(&mut self) {
        if let (Some(bucket), Ok(runtime)) = (self.bucket.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(delete_staged(bucket, self.key.clone()));
        }
    }
}

async fn delete_staged(bucket: Arc<Bucket>, key: Key) {
    if let Err(error) = bucket.delete("delete", &key).await {
        // What is left is swept at the next start.
        tracing::warn!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::store::Budget;

    #[test]
    fn what_says_where_credentials_are_is_an_option_of_its_cloud() {
        assert!(AWS.sources.iter().all(|name| name.parse::<AmazonS3ConfigKey>().is_ok()));
        assert!(GOOGLE.sources.iter().all(|name| name.parse::<GoogleConfigKey>().is_ok()));
        assert!(AZURE.sources.iter().all(|name| name.parse::<AzureConfigKey>().is_ok()));
    }

    #[tokio::test]
    async fn an_object_too_large_to_be_copied_by_the_store_is_copied_through_this_process() {
        let store = Arc::new(InMemory::new());
        let reporter = Arc::new(Reporter::new(&config::Destination {
            name: "lake".to_owned(),
            url: "s3://reports".parse().unwrap(),
            options: Default::default(),
            fsync: true,
            ca_file: None,
            place: String::new(),
        }));
        let mut bucket = Bucket::over(Arc::clone(&store) as _, store, Key::from("folder"), reporter, "me");
        bucket.copy_bytes = 1024;
        let bucket = Arc::new(bucket);
        let bytes = Bytes::from_iter((0..12 * 1024 * 1024_u32).map(|number| (number / 7) as u8));
        let (from, to) = (Key::from("from.zip"), Key::from("to.zip"));
        bucket.replace(&from, bytes.clone().into()).await.unwrap();

        bucket.move_aside(&from, &to, &Budget::new().of_store()).await.unwrap();

        let copy: Vec<Bytes> = bucket.read(&to).await.unwrap().unwrap().try_collect().await.unwrap();
        assert!(copy.concat() == bytes, "the copy differs");
        assert_eq!(bucket.keys(&Key::ROOT).await.unwrap(), ["to.zip"]);
    }
}
