//! The accounts of callers.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::account::{Account, problems};
use crate::config::CallerLimits;

/// Accounts that are kept. Holders of tokens are as many as an identity provider says; the one whose account was not
/// needed for the longest time begins anew.
const KEPT: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// The accounts of callers by name. They outlast a reload.
#[derive(Clone)]
pub(super) struct Accounts(Arc<Mutex<LruCache<Arc<str>, Arc<Account>>>>);

impl Default for Accounts {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(KEPT))))
    }
}

impl Accounts {
    /// The account of a caller with these limits; a new one where they are others than they were.
    ///
    /// # Errors
    ///
    /// The limit that cannot be, and what is wrong with it.
    pub(super) fn of(
        &self,
        caller: &Arc<str>,
        limits: CallerLimits,
    ) -> Result<Arc<Account>, (&'static str, &'static str)> {
        if let Some(problem) = problems(&limits).next() {
            return Err(problem);
        }
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(caller).filter(|account| account.limits == limits) {
            return Ok(account.clone());
        }
        let account = Arc::new(Account::new(limits));
        accounts.put(caller.clone(), account.clone());
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_lasts_as_long_as_its_limits() {
        let accounts = Accounts::default();
        let limits = CallerLimits { max_concurrent: Some(1), ..CallerLimits::default() };
        let first = accounts.of(&"a".into(), limits).unwrap();
        assert!(Arc::ptr_eq(&first, &accounts.of(&"a".into(), limits).unwrap()));
        assert!(!Arc::ptr_eq(&first, &accounts.of(&"b".into(), limits).unwrap()));
        let others = CallerLimits { max_concurrent: Some(2), ..limits };
        assert!(!Arc::ptr_eq(&first, &accounts.of(&"a".into(), others).unwrap()));
    }
}
