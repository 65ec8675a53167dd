//! Reading rows. What does not fit its type names table, key and column, and never panics.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use domain::ids::Generation;
use domain::name::{Name, TargetRef};
use domain::release::{Commit, Digest, Image};
use domain::time::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{Any, Decode, Row, Type};

use super::super::document::{self, Document, Word};
use super::super::error::{Error, Result};

/// One row of a table.
pub(crate) struct Columns<'r> {
    table: &'static str,
    key: &'static [&'static str],
    row: &'r AnyRow,
}

impl<'r> Columns<'r> {
    /// `key` are the columns that name the row in errors.
    pub(crate) fn new(table: &'static str, key: &'static [&'static str], row: &'r AnyRow) -> Self {
        Self { table, key, row }
    }

    /// The error about a column.
    pub(crate) fn corrupt(&self, column: &str, what: impl Display) -> Error {
        let part = |column: &&str| {
            let text = self.row.try_get::<String, _>(*column);
            text.or_else(|_| self.row.try_get::<i64, _>(*column).map(|number| number.to_string()))
                .unwrap_or_else(|_| "?".to_owned())
        };
        let key: Vec<String> = self.key.iter().map(part).collect();
        Error::Corrupt { table: self.table, key: key.join("/"), what: format!("{column}: {what}") }
    }

    fn get<'a, T: Decode<'a, Any> + Type<Any>>(&'a self, column: &str) -> Result<T> {
        self.row.try_get(column).map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn text(&self, column: &str) -> Result<String> {
        self.get(column)
    }

    pub(crate) fn text_or_null(&self, column: &str) -> Result<Option<String>> {
        self.get(column)
    }

    pub(crate) fn bytes(&self, column: &str) -> Result<Vec<u8>> {
        self.get(column)
    }

    pub(crate) fn bytes_or_null(&self, column: &str) -> Result<Option<Vec<u8>>> {
        self.get(column)
    }

    pub(crate) fn int_or_null(&self, column: &str) -> Result<Option<i64>> {
        self.get(column)
    }

    /// A number that fits `T`.
    pub(crate) fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T> {
        let number: i64 = self.get(column)?;
        T::try_from(number).map_err(|_| self.corrupt(column, format!("{number} is out of range")))
    }

    pub(crate) fn number_or_null<T: TryFrom<i64>>(&self, column: &str) -> Result<Option<T>> {
        let Some(number) = self.int_or_null(column)? else { return Ok(None) };
        T::try_from(number).map(Some).map_err(|_| self.corrupt(column, format!("{number} is out of range")))
    }

    pub(crate) fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.number::<i64>(column)? != 0)
    }

    pub(crate) fn generation(&self, column: &str) -> Result<Generation> {
        self.number(column).map(Generation)
    }

    pub(crate) fn at(&self, column: &str) -> Result<Timestamp> {
        self.number(column).map(Timestamp)
    }

    pub(crate) fn at_or_null(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.int_or_null(column)?.map(Timestamp))
    }

    pub(crate) fn time_or_null(&self, column: &str) -> Result<Option<Duration>> {
        Ok(self.number_or_null::<u64>(column)?.map(Duration::from_micros))
    }

    /// Text that `T` reads.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        self.text(column)?.parse().map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn parse_or_null<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>> {
        let text = self.text_or_null(column)?;
        text.map(|text| text.parse().map_err(|error| self.corrupt(column, error))).transpose()
    }

    pub(crate) fn word<T: Word>(&self, column: &str) -> Result<T> {
        let word = self.text(column)?;
        T::from_word(&word).ok_or_else(|| self.corrupt(column, format!("{word:?} is not known")))
    }

    pub(crate) fn word_or_null<T: Word>(&self, column: &str) -> Result<Option<T>> {
        let Some(word) = self.text_or_null(column)? else { return Ok(None) };
        T::from_word(&word).map(Some).ok_or_else(|| self.corrupt(column, format!("{word:?} is not known")))
    }

    pub(crate) fn json<T: Document>(&self, column: &str) -> Result<T> {
        document::read(&self.text(column)?).map_err(|what| self.corrupt(column, what))
    }

    pub(crate) fn json_or_null<T: Document>(&self, column: &str) -> Result<Option<T>> {
        let Some(text) = self.text_or_null(column)? else { return Ok(None) };
        document::read(&text).map(Some).map_err(|what| self.corrupt(column, what))
    }

    pub(crate) fn name(&self, column: &'static str) -> Result<Name> {
        Name::new(column, &self.text(column)?).map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn name_or_null(&self, column: &'static str) -> Result<Option<Name>> {
        let Some(text) = self.text_or_null(column)? else { return Ok(None) };
        Name::new(column, &text).map(Some).map_err(|error| self.corrupt(column, error))
    }

    /// The columns `app` and `target`.
    pub(crate) fn target(&self) -> Result<TargetRef> {
        Ok(TargetRef { app: self.name("app")?, target: self.name("target")? })
    }

    pub(crate) fn digest(&self, column: &str) -> Result<Digest> {
        Digest::parse(&self.text(column)?).map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn digest_or_null(&self, column: &str) -> Result<Option<Digest>> {
        let Some(text) = self.text_or_null(column)? else { return Ok(None) };
        Digest::parse(&text).map(Some).map_err(|error| self.corrupt(column, error))
    }

    pub(crate) fn commit(&self, column: &str) -> Result<Commit> {
        Commit::parse(&self.text(column)?).map_err(|error| self.corrupt(column, error))
    }

    /// The columns `reason_code` and `reason_text`.
    pub(crate) fn reason(&self) -> Result<Option<(String, String)>> {
        let Some(code) = self.text_or_null("reason_code")? else { return Ok(None) };
        Ok(Some((code, self.text_or_null("reason_text")?.unwrap_or_default())))
    }

    /// The columns `image_*`.
    pub(crate) fn image(&self) -> Result<Image> {
        Ok(Image {
            reference: self.text_or_null("image_reference")?,
            archive: self.digest_or_null("image_archive")?,
            archive_bytes: self.number("image_archive_bytes")?,
            config_digest: self.digest_or_null("image_config_digest")?,
            platform: self.text("image_platform")?,
        })
    }
}
