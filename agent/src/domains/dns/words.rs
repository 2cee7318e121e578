//! What a message says, in the words of RFC 1035 and RFC 6895.

use simple_dns::{QTYPE, RCODE, TYPE};

use crate::text::host::Name;

/// A name as labels have it.
pub(super) fn named(name: &simple_dns::Name<'_>) -> Name {
    Name::of_labels(name.get_labels().iter().map(AsRef::as_ref))
}

/// A record type by its name, else by its number.
pub(super) fn type_name(query_type: QTYPE) -> String {
    match query_type {
        QTYPE::TYPE(TYPE::Unknown(number)) => format!("TYPE{number}"),
        QTYPE::TYPE(known) => format!("{known:?}"),
        other => format!("{other:?}"),
    }
}

/// Names of RFC 6895 §2.3.
pub(super) fn rcode_name(rcode: RCODE) -> String {
    match rcode {
        RCODE::NoError => "NOERROR",
        RCODE::FormatError => "FORMERR",
        RCODE::ServerFailure => "SERVFAIL",
        RCODE::NameError => "NXDOMAIN",
        RCODE::NotImplemented => "NOTIMP",
        RCODE::Refused => "REFUSED",
        other => return format!("{other:?}").to_uppercase(),
    }
    .into()
}
