//! Virtual time, and the runtime that moves it.
//!
//! Time is tokio's paused clock, which moves to the next timer when nothing can run. tokio waits for the threads that it has
//! started itself, and not for that of SQLite; so a brake holds the clock while the ledger has a statement to answer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use moesync::{ledger::Memory, sync::Clock};
use tokio::{runtime::Builder, sync::watch, task::spawn_blocking, time::Instant};

use super::chance::Chance;

/// The ledgers whose statements are waited for.
#[derive(Clone, Default)]
pub struct Ledgers {
    open: Arc<Mutex<Vec<Memory>>>,
    is_opening: Arc<AtomicBool>,
}

impl Ledgers {
    /// An empty ledger.
    pub async fn create(&self) -> Memory {
        self.is_opening.store(true, Ordering::Relaxed);
        let memory = Memory::new().await.unwrap();
        self.open.lock().unwrap().push(memory.clone());
        self.is_opening.store(false, Ordering::Relaxed);
        memory
    }

    fn are_idle(&self) -> bool {
        !self.is_opening.load(Ordering::Relaxed) && self.open.lock().unwrap().iter().all(Memory::is_idle)
    }
}

/// Holds time still: while its thread waits, tokio does not move the clock.
#[derive(Default)]
struct Brake(Option<mpsc::Sender<()>>);

impl Brake {
    fn set(&mut self, is_on: bool) {
        if is_on && self.0.is_none() {
            let (release, released) = mpsc::channel::<()>();
            // Ends with an error when the sender is dropped.
            spawn_blocking(move || released.recv());
            self.0 = Some(release);
        } else if !is_on {
            self.0 = None;
        }
    }
}

/// Runs `work` in virtual time.
pub fn run<T>(work: impl FnOnce(Ledgers) -> BoxFuture<'static, T>) -> T {
    let ledgers = Ledgers::default();
    let brake: Arc<Mutex<Brake>> = Arc::default();
    let (watched, pedal) = (ledgers.clone(), Arc::clone(&brake));
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // What another thread has finished waits until nothing else can run: its speed does not decide the order.
        .global_queue_interval(u32::MAX)
        .event_interval(u32::MAX)
        .max_blocking_threads(1)
        .on_thread_park(move || pedal.lock().unwrap().set(!watched.are_idle()))
        .build()
        .unwrap();
    let done = runtime.block_on(work(ledgers));
    brake.lock().unwrap().set(false);
    done
}

/// The clock of the machine on which the daemon runs. The vendor's has no error.
#[derive(Clone)]
pub struct SimulatedClock {
    epoch: Timestamp,
    began: Instant,
    /// By how much it is ahead.
    error: watch::Sender<SignedDuration>,
    chance: Chance,
    drawn: Arc<AtomicU64>,
}

impl SimulatedClock {
    pub fn new(epoch: Timestamp, chance: Chance) -> Self {
        let error = watch::Sender::new(SignedDuration::ZERO);
        Self { epoch, began: Instant::now(), error, chance, drawn: Arc::default() }
    }

    /// The time at the vendor.
    pub fn true_now(&self) -> Timestamp {
        self.epoch + self.began.elapsed()
    }

    /// Sets the machine's clock.
    pub fn set_ahead(&self, by: SignedDuration) {
        self.error.send_replace(by);
    }

    /// Waits until the true time is `at`.
    pub async fn reach(&self, at: Timestamp) {
        tokio::time::sleep_until(self.began + Duration::try_from(at.duration_since(self.epoch)).unwrap()).await;
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.true_now() + *self.error.borrow()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn nap_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let mut set = self.error.subscribe();
        let nap = Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        Box::pin(async move {
            tokio::select! {
                biased;
                _ = set.changed() => {}
                () = tokio::time::sleep(nap) => {}
            }
        })
    }

    fn jitter(&self) -> f64 {
        self.chance.nth(self.drawn.fetch_add(1, Ordering::Relaxed)).unit()
    }
}
