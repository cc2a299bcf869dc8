//! What the API says of the things that it returns: written by the same lines as the types themselves.

use serde_json::{Map, Value, json};

/// The schemas of a document by their names.
#[derive(Debug, Default)]
pub(super) struct Schemas(Map<String, Value>);

impl Schemas {
    /// Returns a reference to an object's schema, which is made at the first look.
    pub(super) fn object(
        &mut self,
        name: &str,
        about: &str,
        fields: impl FnOnce(&mut Self) -> Vec<(&'static str, &'static str, Value)>,
    ) -> Value {
        if !self.0.contains_key(name) {
            // A type that has itself in it ends here.
            self.0.insert(name.to_owned(), Value::Null);
            let fields = fields(self);
            let required: Vec<&str> = fields.iter().map(|(field, ..)| *field).collect();
            let mut properties = Map::new();
            for (field, about, mut schema) in fields.clone() {
                if let Some(schema) = schema.as_object_mut() {
                    schema.insert("description".into(), about.trim().into());
                }
                properties.insert(field.into(), schema);
            }
            let schema = json!({
                "type": "object",
                "description": about.trim(),
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            });
            self.0.insert(name.to_owned(), schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A type that the API returns.
pub(super) trait Described {
    /// Returns its schema.
    fn describe(schemas: &mut Schemas) -> Value;
}

macro_rules! described {
    ($($type:ty: $schema:tt;)*) => {
        $(impl Described for $type {
            fn describe(_: &mut Schemas) -> Value {
                json!($schema)
            }
        })*
    };
}

described! {
    String: { "type": "string" };
    bool: { "type": "boolean" };
    u16: { "type": "integer", "minimum": 0, "maximum": 65535 };
    u32: { "type": "integer", "minimum": 0, "maximum": 4294967295_u32 };
    u64: { "type": "integer", "minimum": 0 };
    i64: { "type": "integer" };
}

impl<T: Described> Described for Option<T> {
    fn describe(schemas: &mut Schemas) -> Value {
        json!({ "anyOf": [T::describe(schemas), { "type": "null" }] })
    }
}

impl<T: Described> Described for Vec<T> {
    fn describe(schemas: &mut Schemas) -> Value {
        json!({ "type": "array", "items": T::describe(schemas) })
    }
}

/// Defines types that the API returns, with their schemas.
macro_rules! view {
    ($(
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $( $(#[doc = $field_about:literal])+ pub $field:ident: $type:ty, )*
        }
    )*) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
            pub struct $name {
                $( $(#[doc = $field_about])+ pub $field: $type, )*
            }

            impl $crate::console::schema::Described for $name {
                fn describe(schemas: &mut $crate::console::schema::Schemas) -> serde_json::Value {
                    schemas.object(stringify!($name), concat!($($about),+), |_schemas| vec![
                        $( (
                            stringify!($field),
                            concat!($($field_about),+),
                            <$type as $crate::console::schema::Described>::describe(_schemas),
                        ) ),*
                    ])
                }
            }
        )*
    };
}
pub(super) use view;
