//! The API as an OpenAPI document. utoipa writes what handlers declare; the schemas are schemars', as in the files
//! of `docs/`: utoipa only learns their names, since its own model of a schema has no `const`.

use std::borrow::Cow;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Schema,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    error::Error,
    incidents::{Format, Page, Standing},
    rates::Shown,
    status::{Probes, Ready},
};
use crate::{pipeline::incident::Incident, severity::Severity};

macro_rules! schemas {
    ($($of:ty)+) => {
        $(
            impl PartialSchema for $of {
                fn schema() -> RefOr<Schema> {
                    Ref::from_schema_name(<Self as ToSchema>::name()).into()
                }
            }

            impl ToSchema for $of {
                fn name() -> Cow<'static, str> {
                    <Self as JsonSchema>::schema_name()
                }
            }
        )+

        /// The schemas by name, with those they are made of.
        fn schemas() -> Map<String, Value> {
            let settings = SchemaSettings::draft2020_12();
            let mut generator =
                settings.with(|settings| settings.definitions_path = "/components/schemas".into()).into_generator();
            $(generator.subschema_for::<$of>();)+
            generator.take_definitions(true)
        }
    };
}

// What handlers may name in their declarations.
schemas! { Error Format Incident Page Probes Ready Severity Shown Standing }

/// What the document says besides routes.
pub(super) fn head() -> OpenApi {
    let password = HttpBuilder::new().scheme(HttpAuthScheme::Basic).build();
    let info = InfoBuilder::new()
        .title("culprit")
        .description(Some("What a running culprit has seen. Read-only."))
        .version("v1")
        .license(Some(LicenseBuilder::new().name("Apache-2.0 OR MIT").build()));
    let components = ComponentsBuilder::new().security_scheme("password", SecurityScheme::Http(password));
    OpenApiBuilder::new().info(info).components(Some(components.build())).build()
}

/// The document, with every schema.
pub(super) fn completed(document: &OpenApi) -> serde_json::Result<Value> {
    let mut document = serde_json::to_value(document)?;
    document["components"]["schemas"] = schemas().into();
    Ok(document)
}
