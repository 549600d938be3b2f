//! A bucket in memory that fails by the weather, and remembers what must never happen to an object.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory,
    multipart::{MultipartStore, PartId},
    path::Path,
};

use super::{
    chance::Chance,
    clock::SimulatedClock,
    trace::Trace,
    weather::{self, MINUTE, StoreFault, Weather},
};

#[derive(Clone)]
pub struct Store {
    name: &'static str,
    memory: Arc<InMemory>,
    clock: SimulatedClock,
    chance: Chance,
    weather: Arc<Weather>,
    trace: Trace,
    /// Whether it refuses to overwrite when asked to.
    is_conditional: bool,
    requests: Arc<AtomicU64>,
    violations: Arc<Mutex<Vec<String>>>,
}

impl Store {
    pub fn new(name: &'static str, clock: SimulatedClock, chance: Chance, weather: Arc<Weather>, trace: Trace) -> Self {
        Self {
            name,
            memory: Arc::default(),
            clock,
            chance,
            weather,
            trace,
            is_conditional: !chance.of("ignores conditions").happens(0.2),
            requests: Arc::default(),
            violations: Arc::default(),
        }
    }

    /// Objects that were overwritten or deleted.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// Every object, without a fault.
    pub async fn objects(&self) -> Vec<(String, Bytes)> {
        let listed: Vec<_> = self.memory.list(None).try_collect().await.unwrap();
        let mut objects = Vec::new();
        for meta in listed {
            objects.push((meta.location.to_string(), self.object(meta.location.as_ref()).await.unwrap()));
        }
        objects
    }

    pub async fn object(&self, key: &str) -> Option<Bytes> {
        self.memory.get(&Path::from(key)).await.ok()?.bytes().await.ok()
    }

    /// Does `work` as the weather has it.
    async fn perform<T>(
        &self,
        operation: &str,
        at: &Path,
        is_write: bool,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let chance = self.chance.of(operation).nth(number);
        tokio::time::sleep(chance.of("latency").between(Duration::from_millis(5), Duration::from_millis(80))).await;
        let now = self.clock.true_now();
        let window = weather::at(&self.weather.stores[self.name], now);
        let sporadic = || chance.of("whether").happens(0.01).then(|| weather::store_fault(chance.of("fault")));
        let fault = window.map(|window| window.what).or_else(sporadic);
        if is_write || fault.is_some() {
            self.trace.add(now, format!("{}: {operation} {at}: {fault:?}", self.name));
        }
        match fault {
            Some(StoreFault::Fails) => return Err(failed("the store failed")),
            Some(StoreFault::Forbids) if is_write => {
                return Err(Error::PermissionDenied { path: at.to_string(), source: "simulated".into() });
            }
            Some(StoreFault::Silent) => self.clock.reach(window.map_or(now + 15 * MINUTE, |window| window.to)).await,
            Some(StoreFault::Slow) => tokio::time::sleep(chance.of("slow").between(MINUTE / 6, 20 * MINUTE)).await,
            _ => {}
        }
        let done = work.await;
        tokio::time::sleep(Duration::from_millis(1 + chance.of("reply").below(30))).await;
        match fault {
            Some(StoreFault::LosesReplies) => Err(failed("the reply was lost")),
            _ => done,
        }
    }

    fn note(&self, violation: String) {
        self.trace.add(self.clock.true_now(), violation.clone());
        self.violations.lock().unwrap().push(violation);
    }

    async fn put(&self, at: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        if !self.is_conditional && options.mode == PutMode::Create {
            options.mode = PutMode::Overwrite;
        }
        let before = self.object(at.as_ref()).await;
        let bytes = Bytes::from(payload.clone());
        let put = self.memory.put_opts(at, payload, options).await;
        // Where the store can refuse to overwrite, no request of moesync's overwrites, not even with equal content.
        if put.is_ok() && is_final(at.as_ref()) && before.is_some_and(|before| self.is_conditional || before != bytes) {
            self.note(format!("{}: {at} was overwritten", self.name));
        }
        put
    }
}

/// Whether a key is that of an archive under its final name.
pub fn is_final(key: &str) -> bool {
    let is_manifest = moesync::report::manifest_subject(key).is_some();
    !key.starts_with("_staging/") && !key.starts_with("_quarantine/") && !is_manifest
}

fn failed(what: &'static str) -> Error {
    Error::Generic { store: "simulated", source: what.into() }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.name)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The methods of object_store's traits are written out as the macro of `async_trait` makes them.
impl ObjectStore for Store {
    fn put_opts<'s, 'l, 'f>(
        &'s self,
        at: &'l Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'f, Result<PutResult>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        Box::pin(self.perform("put", at, true, self.put(at, payload, options)))
    }

    fn put_multipart_opts<'s, 'l, 'f>(
        &'s self,
        at: &'l Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'f, Result<Box<dyn MultipartUpload>>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        self.memory.put_multipart_opts(at, options)
    }

    fn get_opts<'s, 'l, 'f>(&'s self, at: &'l Path, options: GetOptions) -> BoxFuture<'f, Result<GetResult>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        Box::pin(self.perform("get", at, false, self.memory.get_opts(at, options)))
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |key: Result<Path>| {
            let store = store.clone();
            async move {
                let key = key?;
                if is_final(key.as_ref()) {
                    store.note(format!("{}: {key} was deleted", store.name));
                }
                store.perform("delete", &key, true, store.memory.delete(&key)).await.map(|()| key)
            }
        };
        keys.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move {
            let listing = async { Ok(store.memory.list(Some(&prefix).filter(|prefix| !prefix.is_root()))) };
            store
                .perform("list", &prefix, false, listing)
                .await
                .unwrap_or_else(|error| stream::iter([Err(error)]).boxed())
        };
        stream::once(listed).flatten().boxed()
    }

    fn list_with_delimiter<'s, 'l, 'f>(&'s self, prefix: Option<&'l Path>) -> BoxFuture<'f, Result<ListResult>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        self.memory.list_with_delimiter(prefix)
    }

    fn copy_opts<'s, 'a, 'b, 'f>(
        &'s self,
        from: &'a Path,
        to: &'b Path,
        options: CopyOptions,
    ) -> BoxFuture<'f, Result<()>>
    where
        's: 'f,
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        Box::pin(self.perform("copy", to, true, self.memory.copy_opts(from, to, options)))
    }
}

/// Archives of the simulation are smaller than a part, so these have no faults.
impl MultipartStore for Store {
    fn create_multipart<'s, 'l, 'f>(&'s self, at: &'l Path) -> BoxFuture<'f, Result<MultipartId>>
    where
        's: 'f,
        'l: 'f,
        Self: 'f,
    {
        self.memory.create_multipart(at)
    }

    fn put_part<'s, 'l, 'm, 'f>(
        &'s self,
        at: &'l Path,
        id: &'m MultipartId,
        number: usize,
        data: PutPayload,
    ) -> BoxFuture<'f, Result<PartId>>
    where
        's: 'f,
        'l: 'f,
        'm: 'f,
        Self: 'f,
    {
        self.memory.put_part(at, id, number, data)
    }

    fn complete_multipart<'s, 'l, 'm, 'f>(
        &'s self,
        at: &'l Path,
        id: &'m MultipartId,
        parts: Vec<PartId>,
    ) -> BoxFuture<'f, Result<PutResult>>
    where
        's: 'f,
        'l: 'f,
        'm: 'f,
        Self: 'f,
    {
        self.memory.complete_multipart(at, id, parts)
    }

    fn abort_multipart<'s, 'l, 'm, 'f>(&'s self, at: &'l Path, id: &'m MultipartId) -> BoxFuture<'f, Result<()>>
    where
        's: 'f,
        'l: 'f,
        'm: 'f,
        Self: 'f,
    {
        self.memory.abort_multipart(at, id)
    }
}
