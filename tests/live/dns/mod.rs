//! DNS lookups: what becomes of them, whose they are, which server was asked, and what is concluded when none answers.

mod incidents;
mod lookups;
mod resolvers;
