//! A deserializer that does not say how long a map is.
//!
//! The length is what the input says, and types that make room for so many entries before they read the first one would
//! take all memory for a few bytes. `postcard` itself bounds the lengths of sequences by what is left of the input, and
//! leaves those of maps as they are.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// Decodes a value from its encoding by `postcard`.
pub(crate) fn from_bytes<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> postcard::Result<T> {
    T::deserialize(Unhinted(&mut postcard::Deserializer::from_bytes(bytes)))
}

/// Around whatever leads to a map.
struct Unhinted<T>(T);

macro_rules! deserialize {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* Unhinted(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Unhinted<D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(length: usize);
        deserialize_tuple_struct(name: &'static str, length: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Unhinted<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Unhinted(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Unhinted(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Unhinted(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Unhinted(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Unhinted(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Unhinted<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Unhinted(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Unhinted<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Unhinted(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Unhinted<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Unhinted(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Unhinted(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        None
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Unhinted<A> {
    type Error = A::Error;
    type Variant = Unhinted<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(Unhinted(seed))?;
        Ok((value, Unhinted(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Unhinted<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Unhinted(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(length, Unhinted(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Unhinted(visitor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a map says of its length before its first entry.
    #[derive(Debug, PartialEq)]
    struct Hint(Option<usize>);

    impl<'de> Deserialize<'de> for Hint {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct OfMap;
            impl<'de> Visitor<'de> for OfMap {
                type Value = Hint;

                fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                    formatter.write_str("a map")
                }

                fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Hint, A::Error> {
                    Ok(Hint(entries.size_hint()))
                }
            }
            deserializer.deserialize_map(OfMap)
        }
    }

    /// Wasmtime's table of exports made room for as many entries as an image said that there are: five bytes in the
    /// memory of a process took gigabytes in the one that attached to it.
    #[test]
    fn no_map_says_how_long_it_is() {
        let two_billion = [0xff, 0xff, 0xff, 0xff, 0x07];
        assert_eq!(postcard::from_bytes(&two_billion), Ok(Hint(Some(i32::MAX as usize))));
        assert_eq!(from_bytes(&two_billion), Ok(Hint(None)));
        let nested = [&[1, 1, 0][..], &two_billion].concat();
        type Nested = (Option<Vec<Result<Hint, u8>>>,);
        assert_eq!(from_bytes::<Nested>(&nested), Ok((Some(vec![Ok(Hint(None))]),)));
    }

    #[test]
    fn values_are_what_they_are_without() {
        use std::collections::BTreeMap;
        type Value = (u64, i8, bool, Option<String>, BTreeMap<u8, Vec<f64>>, Result<char, ()>);
        let map = [(3, vec![0.5, -1.0]), (9, Vec::new())].into();
        let value: Value = (1 << 40, -3, true, Some("name".to_owned()), map, Ok('x'));
        let bytes = postcard::to_allocvec(&value).unwrap();
        assert_eq!(from_bytes::<Value>(&bytes), Ok(value));
        for end in 0..bytes.len() {
            assert!(from_bytes::<Value>(&bytes[..end]).is_err());
        }
    }
}
