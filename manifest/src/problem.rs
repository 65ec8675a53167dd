//! What is wrong with a file, and what was changed while it was read.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Stable reason codes of this crate; programs may match on their texts.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code { $($(#[doc = $doc])+ $name,)+ }

        impl Code {
            /// Every code, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The text, for example `E_MANIFEST_SYNTAX`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

codes! {
    /// `muster.yaml` is not YAML as Muster reads it.
    ManifestSyntax = "E_MANIFEST_SYNTAX",
    /// `muster.yaml` is larger than 1 MiB.
    ManifestTooLarge = "E_MANIFEST_TOO_LARGE",
    /// `muster.yaml` is nested deeper than 64 levels.
    ManifestTooDeep = "E_MANIFEST_TOO_DEEP",
    /// `muster.yaml` has too many values, or its aliases expand to too many.
    ManifestTooManyNodes = "E_MANIFEST_TOO_MANY_NODES",
    /// A key stands twice in one map of `muster.yaml`.
    ManifestDuplicateKey = "E_MANIFEST_DUPLICATE_KEY",
    /// A key that no version has.
    ManifestUnknownKey = "E_MANIFEST_UNKNOWN_KEY",
    /// A key or value of the design that this version does not run.
    ManifestUnsupported = "E_MANIFEST_UNSUPPORTED",
    /// A required key is not there.
    ManifestMissingKey = "E_MANIFEST_MISSING_KEY",
    /// A list where a text belongs, and the like.
    ManifestType = "E_MANIFEST_TYPE",
    /// A value that the key does not take.
    ManifestValue = "E_MANIFEST_VALUE",
    /// A number, duration or amount outside its range.
    ManifestRange = "E_MANIFEST_RANGE",
    /// Not a duration.
    ManifestDuration = "E_MANIFEST_DURATION",
    /// Not a name.
    ManifestName = "E_MANIFEST_NAME",
    /// Not a selector.
    ManifestSelector = "E_MANIFEST_SELECTOR",
    /// A name that nothing in the file has.
    ManifestReference = "E_MANIFEST_REFERENCE",
    /// Two values that do not go together.
    ManifestConflict = "E_MANIFEST_CONFLICT",
    /// The stack file is not YAML as Muster reads it.
    StackSyntax = "E_STACK_SYNTAX",
    /// The stack file is larger than 1 MiB.
    StackTooLarge = "E_STACK_TOO_LARGE",
    /// The stack file is nested deeper than 64 levels.
    StackTooDeep = "E_STACK_TOO_DEEP",
    /// The stack file has too many values, or its aliases expand to too many.
    StackTooManyNodes = "E_STACK_TOO_MANY_NODES",
    /// A key stands twice in one map of the stack file.
    StackDuplicateKey = "E_STACK_DUPLICATE_KEY",
    /// A key that Compose does not have.
    StackUnknownKey = "E_STACK_UNKNOWN_KEY",
    /// Something of Compose that this version does not run.
    StackUnsupported = "E_STACK_UNSUPPORTED",
    /// Something that would reach outside the environment.
    StackRefused = "E_STACK_REFUSED",
    /// A path that leaves the stack file's folder.
    StackOutsideFolder = "E_STACK_OUTSIDE_FOLDER",
    /// A required key is not there.
    StackMissingKey = "E_STACK_MISSING_KEY",
    /// A list where a text belongs, and the like.
    StackType = "E_STACK_TYPE",
    /// A value that the key does not take.
    StackValue = "E_STACK_VALUE",
    /// A number or size outside its range.
    StackRange = "E_STACK_RANGE",
    /// Not a duration.
    StackDuration = "E_STACK_DURATION",
    /// Not the name of a service, a volume or a variable.
    StackName = "E_STACK_NAME",
    /// Not a port, a mapping or a range of ports.
    StackPort = "E_STACK_PORT",
    /// A `$…` that is not an interpolation.
    StackInterpolation = "E_STACK_INTERPOLATION",
    /// A variable that the file requires (`${X:?…}`) is not set.
    StackVariable = "E_STACK_VARIABLE",
    /// A file that the stack file includes, extends or gives to a service is missing.
    StackFile = "E_STACK_FILE",
    /// A file of variables is missing or malformed.
    StackEnvFile = "E_STACK_ENV_FILE",
    /// A volume or network that the file does not declare.
    StackReference = "E_STACK_REFERENCE",
    /// A dependency on a service that the file does not have.
    StackDependencyUnknown = "E_STACK_DEPENDENCY_UNKNOWN",
    /// Services that wait for each other.
    StackDependencyCycle = "E_STACK_DEPENDENCY_CYCLE",
    /// Two values that do not go together.
    StackConflict = "E_STACK_CONFLICT",
    /// Not an image reference.
    ImageRef = "E_IMAGE_REF",
    /// An image reference without a digest where one is required.
    ImageNotPinned = "E_IMAGE_NOT_PINNED",
    /// Not a git URL that Muster fetches from.
    GitUrl = "E_GIT_URL",
    /// Not a full commit id.
    GitCommit = "E_GIT_COMMIT",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pos {
    /// Which of the files that are read together; 0 is the first.
    pub(crate) file: u16,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Pos {
    /// The file's first character.
    pub const START: Self = Self { file: 0, line: 1, column: 1 };
}

/// One thing that is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Problem {
    /// Reason code.
    pub code: Code,
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// What is wrong: a lowercase fragment. Never holds the value of a variable.
    pub message: String,
    /// What to do about it; empty when the message says it.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

/// Something that Muster does in another way than Compose would, told to the user once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// What is done instead: a lowercase fragment.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

/// The codes under which the shared parts report for one kind of file.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) syntax: Code,
    pub(crate) too_large: Code,
    pub(crate) too_deep: Code,
    pub(crate) too_many_nodes: Code,
    pub(crate) duplicate_key: Code,
    pub(crate) unknown_key: Code,
    pub(crate) unsupported: Code,
    pub(crate) missing_key: Code,
    pub(crate) kind: Code,
    pub(crate) value: Code,
    pub(crate) range: Code,
    pub(crate) duration: Code,
    /// `x-…` keys are allowed everywhere.
    pub(crate) extensions: bool,
    /// The tags `!reset` and `!override` are read.
    pub(crate) marks: bool,
}

pub(crate) static MANIFEST: Family = Family {
    syntax: Code::ManifestSyntax,
    too_large: Code::ManifestTooLarge,
    too_deep: Code::ManifestTooDeep,
    too_many_nodes: Code::ManifestTooManyNodes,
    duplicate_key: Code::ManifestDuplicateKey,
    unknown_key: Code::ManifestUnknownKey,
    unsupported: Code::ManifestUnsupported,
    missing_key: Code::ManifestMissingKey,
    kind: Code::ManifestType,
    value: Code::ManifestValue,
    range: Code::ManifestRange,
    duration: Code::ManifestDuration,
    extensions: false,
    marks: false,
};

pub(crate) static STACK: Family = Family {
    syntax: Code::StackSyntax,
    too_large: Code::StackTooLarge,
    too_deep: Code::StackTooDeep,
    too_many_nodes: Code::StackTooManyNodes,
    duplicate_key: Code::StackDuplicateKey,
    unknown_key: Code::StackUnknownKey,
    unsupported: Code::StackUnsupported,
    missing_key: Code::StackMissingKey,
    kind: Code::StackType,
    value: Code::StackValue,
    range: Code::StackRange,
    duration: Code::StackDuration,
    extensions: true,
    marks: true,
};
