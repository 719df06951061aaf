//! Why a caller is not known.

/// Why a caller is not known. What a key or token holds is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// There is no key and no token.
    #[error("an API key or a token is needed: send `authorization: Bearer …` or `x-api-key`")]
    Missing,
    /// The key is none of those that are known.
    #[error("the API key is not known")]
    Unknown,
    /// The token is not what it must be, for this reason.
    #[error("the token {0}")]
    Token(&'static str),
    /// The token's time is over.
    #[error("the token has expired")]
    Expired,
}

impl Denial {
    /// Its stable name.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "CREDENTIALS_MISSING",
            Self::Unknown => "CREDENTIALS_UNKNOWN",
            Self::Token(_) => "TOKEN_INVALID",
            Self::Expired => "TOKEN_EXPIRED",
        }
    }
}
