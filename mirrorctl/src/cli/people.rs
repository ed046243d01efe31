//! What can be typed about people: users, logging in, tokens and certificates. No password stands on a command line:
//! other users of the host would read it there.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `mirrorctl login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Who you are
    pub user: String,
    /// File with the password; - is standard input [default: you are asked]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// How long the token is good for, 1m to 30d [default: 12h]
    #[arg(long, value_name = "SPAN")]
    pub ttl: Option<String>,
    /// Hash of the fleet's CA, from an admin: with --server it makes your first context
    #[arg(long, value_name = "HASH")]
    pub ca_hash: Option<String>,
}

/// `mirrorctl user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Enter a user
    ///
    /// The first password is asked for, or read from a file; the user changes it with `mirrorctl user password`. A user
    /// without one is known by certificates alone.
    Create {
        /// The user
        user: String,
        /// What the user may do
        #[arg(long, value_enum)]
        role: RoleArg,
        /// File with the first password; - is standard input [default: you are asked]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Give no password
        #[arg(long, conflicts_with = "password_file")]
        no_password: bool,
    },
    /// All users
    List,
    /// One user
    Show {
        /// The user
        user: String,
    },
    /// Say what a user may do, from the next request on
    SetRole {
        /// The user
        user: String,
        /// The role
        #[arg(value_enum)]
        role: RoleArg,
    },
    /// Give a user another password; all tokens and all certificates of before end
    ResetPassword {
        /// The user
        user: String,
        /// File with the password; - is standard input [default: you are asked]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Change your own password; all your tokens end
    Password {
        /// File with the present password [default: you are asked]
        #[arg(long, value_name = "FILE")]
        old_password_file: Option<PathBuf>,
        /// File with the new password; - is standard input [default: you are asked]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Shut a user out at once, whatever he has: tokens end, streams are cut
    Disable {
        /// The user
        user: String,
    },
    /// Let a disabled user in again
    Enable {
        /// The user
        user: String,
    },
    /// Remove a user
    Delete {
        /// The user
        user: String,
    },
}

/// What a user may do, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Sees
    Viewer,
    /// Sees, and runs, pauses, resumes, cancels and approves in projects that name the user as owner
    Owner,
    /// Acts on all projects, agents and upstreams
    Operator,
    /// Everything
    Admin,
}

/// `mirrorctl token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Tokens that are still good, yours or another user's
    List {
        /// Another user; needs the role admin
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Make a token useless
    Revoke {
        /// The token's id, from token list
        token: String,
        /// Another user's; needs the role admin
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
}

/// `mirrorctl cert`.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Get a client certificate, good for 90 days, into the context
    ///
    /// The key is made here and stays here. From a third of its life on the certificate is renewed by itself, by the
    /// first command that reaches the coordinator.
    Issue {
        /// Another user's, for a request of that user; needs the role admin
        #[arg(long, value_name = "USER", requires = "request")]
        user: Option<String>,
        /// A certificate request (PKCS #10, PEM) of a key made elsewhere; the certificate goes to standard output
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
    },
    /// The context's certificate, and when it ends; needs no coordinator
    Show,
}
