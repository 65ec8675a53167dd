//! Leaf values that are stored as JSON text, in the store's own shapes: the domain knows no serde, and a field that is
//! renamed there must not change what lies in databases.
//!
//! A newer binary may add fields: they are left out by older readers, and must be optional or have a default here.

mod app;
mod environment;
mod host;
mod run;
mod seed;
mod step;
mod word;

use std::collections::BTreeMap;
use std::time::Duration;

use domain::ids::{Generation, HostId, ReleaseId, RolloutId};
use domain::label::Selector;
use domain::name::Name;
use domain::release::Digest;
use domain::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value with a stored shape.
pub(crate) trait Document: Sized {
    /// The stored shape.
    type Stored: Serialize + DeserializeOwned;
    /// Into the stored shape.
    fn to_stored(&self) -> Self::Stored;
    /// Out of it; the error says what is wrong.
    fn from_stored(stored: Self::Stored) -> Result<Self, String>;
}

/// A value without data, stored as a word.
pub(crate) trait Word: Sized + Copy {
    /// The word.
    fn word(self) -> &'static str;
    /// The value of a word.
    fn from_word(word: &str) -> Option<Self>;
}

/// The JSON text of a value.
pub(crate) fn write<T: Document>(value: &T) -> Result<String, String> {
    serde_json::to_string(&value.to_stored()).map_err(|error| error.to_string())
}

/// The value of a JSON text.
pub(crate) fn read<T: Document>(text: &str) -> Result<T, String> {
    let stored = serde_json::from_str(text).map_err(|error| error.to_string())?;
    T::from_stored(stored)
}

/// A domain struct stored field by field under the same names.
macro_rules! document {
    ($domain:ty => $shape:ident { $($(#[$attr:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        pub(crate) struct $shape {
            $($(#[$attr])* $field: <$type as $crate::store::document::Document>::Stored,)*
        }

        impl $crate::store::document::Document for $domain {
            type Stored = $shape;

            fn to_stored(&self) -> $shape {
                $shape { $($field: $crate::store::document::Document::to_stored(&self.$field),)* }
            }

            fn from_stored(stored: $shape) -> Result<Self, String> {
                Ok(Self {
                    $($field: $crate::store::document::Document::from_stored(stored.$field)
                        .map_err(|what| format!(concat!(stringify!($field), ": {}"), what))?,)*
                })
            }
        }
    };
}
pub(crate) use document;

/// Domain values without data, each with its stored word.
macro_rules! words {
    ($domain:ty { $($variant:ident = $word:literal,)* }) => {
        impl $crate::store::document::Word for $domain {
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        $crate::store::document::word_document!($domain);
    };
}
pub(crate) use words;

/// A [`Word`] within a document.
macro_rules! word_document {
    ($domain:ty) => {
        impl $crate::store::document::Document for $domain {
            type Stored = String;

            fn to_stored(&self) -> String {
                $crate::store::document::Word::word(*self).to_owned()
            }

            fn from_stored(stored: String) -> Result<Self, String> {
                $crate::store::document::Word::from_word(&stored).ok_or_else(|| format!("{stored:?} is not known"))
            }
        }
    };
}
pub(crate) use word_document;

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Document for $type {
            type Stored = Self;

            fn to_stored(&self) -> Self {
                self.clone()
            }

            fn from_stored(stored: Self) -> Result<Self, String> {
                Ok(stored)
            }
        }
    )*};
}
plain!(bool, i32, i64, u16, u32, u64, String);

macro_rules! parsed {
    ($($type:ty: $write:expr, $read:expr;)*) => {$(
        impl Document for $type {
            type Stored = String;

            fn to_stored(&self) -> String {
                let write: fn(&Self) -> String = $write;
                write(self)
            }

            fn from_stored(stored: String) -> Result<Self, String> {
                let read: fn(&str) -> Result<Self, String> = $read;
                read(&stored)
            }
        }
    )*};
}
parsed! {
    Name: ToString::to_string, |text| Self::new("name", text).map_err(|error| error.to_string());
    Selector: ToString::to_string, |text| Self::parse(text).map_err(|error| error.to_string());
    Digest: |digest| digest.hex().to_owned(), |text| Self::parse(text).map_err(|error| error.to_string());
    HostId: ToString::to_string, |text| text.parse().map_err(|error: domain::ids::ParseIdError| error.to_string());
    ReleaseId: ToString::to_string, |text| text.parse().map_err(|error: domain::ids::ParseIdError| error.to_string());
    RolloutId: ToString::to_string, |text| text.parse().map_err(|error: domain::ids::ParseIdError| error.to_string());
}

impl Document for Duration {
    /// Microseconds.
    type Stored = u64;

    fn to_stored(&self) -> u64 {
        u64::try_from(self.as_micros()).unwrap_or(u64::MAX)
    }

    fn from_stored(stored: u64) -> Result<Self, String> {
        Ok(Self::from_micros(stored))
    }
}

impl Document for Timestamp {
    /// Microseconds since 1970.
    type Stored = i64;

    fn to_stored(&self) -> i64 {
        self.0
    }

    fn from_stored(stored: i64) -> Result<Self, String> {
        Ok(Self(stored))
    }
}

impl Document for Generation {
    type Stored = u64;

    fn to_stored(&self) -> u64 {
        self.0
    }

    fn from_stored(stored: u64) -> Result<Self, String> {
        Ok(Self(stored))
    }
}

impl<T: Document> Document for Box<T> {
    type Stored = T::Stored;

    fn to_stored(&self) -> T::Stored {
        (**self).to_stored()
    }

    fn from_stored(stored: T::Stored) -> Result<Self, String> {
        T::from_stored(stored).map(Self::new)
    }
}

impl<T: Document> Document for Option<T> {
    type Stored = Option<T::Stored>;

    fn to_stored(&self) -> Self::Stored {
        self.as_ref().map(Document::to_stored)
    }

    fn from_stored(stored: Self::Stored) -> Result<Self, String> {
        stored.map(T::from_stored).transpose()
    }
}

impl<T: Document> Document for Vec<T> {
    type Stored = Vec<T::Stored>;

    fn to_stored(&self) -> Self::Stored {
        self.iter().map(Document::to_stored).collect()
    }

    fn from_stored(stored: Self::Stored) -> Result<Self, String> {
        stored.into_iter().map(T::from_stored).collect()
    }
}

impl<K, V> Document for BTreeMap<K, V>
where
    K: Document<Stored: Ord> + Ord,
    V: Document,
{
    type Stored = BTreeMap<K::Stored, V::Stored>;

    fn to_stored(&self) -> Self::Stored {
        self.iter().map(|(key, value)| (key.to_stored(), value.to_stored())).collect()
    }

    fn from_stored(stored: Self::Stored) -> Result<Self, String> {
        stored.into_iter().map(|(key, value)| Ok((K::from_stored(key)?, V::from_stored(value)?))).collect()
    }
}
