//! Tokens: secrets that are made here, shown once and stored as a hash. With a join token a new host asks for its first
//! certificate; with a user token a person is known for some hours; with a push token a program pushes one project. Uses,
//! lifetime and whom they are bound to are kept with the hash by the coordinator.
//!
//! A plain SHA-256 is enough for storage: 192 random bits cannot be guessed, slowly or quickly.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize as _, Zeroizing};

/// Random bytes in a token: 192 bits, and a multiple of three, so that base64 ends on a whole character and each token
/// has exactly one spelling.
const TOKEN_BYTES: usize = 24;

/// What every token starts with, before its kind's own letters end: `m`, one letter, `t`, `_`.
const PREFIX_CHARS: usize = 4;

/// Characters of a whole token.
const TOKEN_CHARS: usize = PREFIX_CHARS + TOKEN_BYTES / 3 * 4;

/// What a token is for.
pub trait TokenKind {
    /// What every token of the kind starts with, so that people and secret scanners recognise one.
    const PREFIX: &'static str;
    /// Its name, for messages.
    const NAME: &'static str;
}

/// Of a [`JoinToken`].
#[derive(Debug, Clone)]
pub enum Join {}

impl TokenKind for Join {
    const PREFIX: &'static str = "mjt_";
    const NAME: &'static str = "join token";
}

/// Of a [`UserToken`].
#[derive(Debug, Clone)]
pub enum User {}

impl TokenKind for User {
    const PREFIX: &'static str = "mut_";
    const NAME: &'static str = "user token";
}

/// By it a new host asks for its first certificate.
pub type JoinToken = Token<Join>;

/// By it a user is known for some hours.
pub type UserToken = Token<User>;

/// Of a [`PushToken`].
#[derive(Debug, Clone)]
pub enum Push {}

impl TokenKind for Push {
    const PREFIX: &'static str = "mpt_";
    const NAME: &'static str = "push token";
}

/// By it a program pushes one project, and does nothing else.
pub type PushToken = Token<Push>;

/// Why there is no token. Repeats no part of the text: it may be a real token with a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is no token.
    #[error("this is no {name}: one is `{prefix}` and 32 characters; copy it whole, or ask for a new one")]
    Malformed {
        /// What was wanted.
        name: &'static str,
        /// How one begins.
        prefix: &'static str,
    },
    /// No random numbers.
    #[error("this host has no random numbers")]
    Random,
}

/// A token. Wiped on drop, hidden from `Debug`, and without `Display`: [`Token::reveal`] is the one way out.
#[derive(Clone)]
pub struct Token<K>(Zeroizing<String>, PhantomData<K>);

impl<K: TokenKind> Token<K> {
    /// Draws a new token.
    ///
    /// # Errors
    /// [`TokenError::Random`] when the system has no random numbers.
    pub fn generate() -> Result<Self, TokenError> {
        let mut bytes = Zeroizing::new([0u8; TOKEN_BYTES]);
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| TokenError::Random)?;
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS));
        text.push_str(K::PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_ref(), &mut text);
        Ok(Self(text, PhantomData))
    }

    /// The token itself, to be shown once or sent once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored instead of the token: the SHA-256 of its text, 64 hex digits.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(digest(&SHA256, self.0.as_bytes()))
    }

    /// Whether `stored` is this token's [`Token::hash`]; takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, stored: &str) -> bool {
        verify_slices_are_equal(self.hash().as_bytes(), stored.as_bytes()).is_ok()
    }
}

impl<K: TokenKind> FromStr for Token<K> {
    type Err = TokenError;

    /// Reads a token as shown by [`Token::reveal`]. White space around it, as a copy may have, is taken off.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let mut bytes = [0u8; TOKEN_BYTES];
        let decoded = text
            .strip_prefix(K::PREFIX)
            .is_some_and(|body| URL_SAFE_NO_PAD.decode_slice(body, &mut bytes) == Ok(TOKEN_BYTES));
        bytes.zeroize();
        if !decoded {
            return Err(TokenError::Malformed { name: K::NAME, prefix: K::PREFIX });
        }
        Ok(Self(Zeroizing::new(text.to_owned()), PhantomData))
    }
}

impl<K: TokenKind> fmt::Debug for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}[hidden])", K::PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_survives_copy_and_paste() {
        let token = JoinToken::generate().unwrap();
        assert!(token.reveal().starts_with("mjt_"));
        assert_eq!(token.reveal().len(), TOKEN_CHARS);
        let read: JoinToken = format!(" {}\n", token.reveal()).parse().unwrap();
        assert_eq!(read.hash(), token.hash());
        assert_ne!(JoinToken::generate().unwrap().hash(), token.hash());
    }

    #[test]
    fn the_hash_is_of_the_whole_text() {
        let token: JoinToken = "mjt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        assert_eq!(token.hash(), hex::encode(digest(&SHA256, b"mjt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")));
        assert!(token.matches(&token.hash()));
        for other in ["", "00", &token.hash()[1..], &JoinToken::generate().unwrap().hash()] {
            assert!(!token.matches(other));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = JoinToken::generate().unwrap().reveal().to_owned();
        let spaced = format!("{} {}", &good[..20], &good[21..]);
        for bad in
            ["", "mjt_", &good[4..], &good[..35], &format!("{good}A"), &good.replace("mjt_", "mjt-"), &spaced]
        {
            assert!(matches!(bad.parse::<JoinToken>().unwrap_err(), TokenError::Malformed { .. }), "{bad:?}");
        }
    }

    #[test]
    fn one_kind_is_not_the_other() {
        let token = UserToken::generate().unwrap();
        assert_eq!(token.reveal().len(), TOKEN_CHARS);
        let refused = token.reveal().parse::<JoinToken>().unwrap_err();
        assert!(refused.to_string().starts_with("this is no join token: one is `mjt_`"), "{refused}");
        assert!(token.reveal().parse::<UserToken>().unwrap().matches(&token.hash()));
    }

    #[test]
    fn debug_never_shows_it() {
        assert_eq!(format!("{:?}", JoinToken::generate().unwrap()), "Token(mjt_[hidden])");
        assert_eq!(format!("{:?}", UserToken::generate().unwrap()), "Token(mut_[hidden])");
    }

    proptest! {
        #[test]
        fn every_accepted_text_has_one_spelling(text in "mjt_[A-Za-z0-9_-]{30,34}") {
            match text.parse::<JoinToken>() {
                Ok(token) => prop_assert_eq!(token.reveal(), text.as_str()),
                Err(_) => prop_assert_ne!(text.len(), TOKEN_CHARS),
            }
        }
    }
}
