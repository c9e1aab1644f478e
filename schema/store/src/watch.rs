//! A value that others watch: tokio's `sync::watch`, but for one thing. Who waits is woken in the order in which he began
//! to wait; tokio's wakes in an order of its own that differs from run to run, so that no seed would replay a run.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

struct Shared<T> {
    /// The value, and how often it was changed.
    value: RwLock<(T, u64)>,
    closed: AtomicBool,
    news: Notify,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, (T, u64)> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, (T, u64)> {
        self.value.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that changes the value. When it goes, receivers are told.
pub struct Sender<T>(Arc<Shared<T>>);

/// A side that watches. Each has its own idea of what is news.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, borrowed: nobody changes it meanwhile, so it must not be kept for long.
pub struct Ref<'a, T>(RwLockReadGuard<'a, (T, u64)>);

/// The sender is gone, and there is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody changes the value any more")]
pub struct Closed;

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

/// A value with one that watches it, for whom it is no news.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A value that nobody watches yet.
    pub fn new(value: T) -> Sender<T> {
        let closed = AtomicBool::new(false);
        Sender(Arc::new(Shared { value: RwLock::new((value, 0)), closed, news: Notify::new() }))
    }

    /// One more that watches; the present value is no news for it.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { seen: self.0.read().1, shared: self.0.clone() }
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    /// Changes the value; who watches is told if `change` says so. Returns what it said.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.0.write();
        let news = change(&mut value.0);
        value.1 += u64::from(news);
        drop(value);
        if news {
            self.0.news.notify_waiters();
        }
        news
    }

    /// Changes the value and tells.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Replaces the value and tells. Returns the old one.
    pub fn send_replace(&self, value: T) -> T {
        let mut old = value;
        self.send_modify(|current| std::mem::swap(current, &mut old));
        old
    }
}

impl<T> Receiver<T> {
    /// The value; whether it is news stays as it is.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// The value, which is no news any more.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        self.seen = value.1;
        Ref(value)
    }

    /// Whether there is news.
    ///
    /// # Errors
    /// When there is none, and the sender is gone.
    pub fn has_changed(&self) -> Result<bool, Closed> {
        // First whether it is closed: the last news may come just before.
        let closed = self.shared.closed.load(Ordering::SeqCst);
        let news = self.shared.read().1 != self.seen;
        if !news && closed {
            return Err(Closed);
        }
        Ok(news)
    }

    /// Returns when there is news, which is none any more then. Nothing is lost when it is dropped before.
    ///
    /// # Errors
    /// When there is none, and the sender is gone.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Whoever changes the value after this line wakes it.
            let news = self.shared.news.notified();
            if self.has_changed()? {
                self.seen = self.shared.read().1;
                return Ok(());
            }
            news.await;
        }
    }

    /// Returns once the value was as wished, which is no news any more then. What is borrowed may be newer.
    ///
    /// # Errors
    /// When it is not, and the sender is gone.
    pub async fn wait_for(&mut self, mut wished: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        while !wished(&self.borrow_and_update()) {
            self.changed().await?;
        }
        Ok(self.borrow())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.news.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Sender<T> {
        Sender::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*self.borrow()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn each_watcher_is_told_once_of_what_is_news() {
        let (sender, mut first) = channel(1);
        let mut second = sender.subscribe();
        assert_eq!(first.has_changed(), Ok(false));
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(first.has_changed(), Ok(false));
        assert_eq!(sender.send_replace(2), 1);
        first.changed().await.unwrap();
        assert_eq!((*first.borrow(), first.has_changed()), (2, Ok(false)));
        assert_eq!(*second.borrow_and_update(), 2);
        assert_eq!(second.has_changed(), Ok(false));
        sender.send_modify(|value| *value = 3);
        drop(sender);
        // The last news first, then the end.
        assert_eq!(second.changed().await, Ok(()));
        assert_eq!(*second.borrow(), 3);
        assert_eq!(second.changed().await, Err(Closed));
    }

    #[tokio::test]
    async fn waiting_ends_with_news_and_with_the_sender() {
        let (sender, receiver) = channel(0);
        let mut waiting = receiver.clone();
        let told = tokio::spawn(async move { (waiting.changed().await, waiting.changed().await) });
        tokio::task::yield_now().await;
        sender.send_replace(1);
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(told.await.unwrap(), (Ok(()), Err(Closed)));
    }

    #[tokio::test]
    async fn waiters_are_woken_in_their_order() {
        let sender = Sender::new(());
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiters: Vec<_> = (0..50)
            .map(|n| {
                let (mut receiver, order) = (sender.subscribe(), order.clone());
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    order.lock().unwrap().push(n);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send_replace(());
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
