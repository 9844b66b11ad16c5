//! Plugins as core modules in text, for what no compiler would write.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const EXPECT: &str = "it fits the world";

/// A component of one of the worlds in `wit/`, from a core module.
pub fn component(world: &str, core: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package =
        resolve.push_str("plugin.wit", include_str!("../../wit/plugin.wit")).expect(EXPECT);
    let world = resolve.select_world(&[package], Some(world)).expect(EXPECT);
    let mut module = wat::parse_str(core).expect(EXPECT);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect(EXPECT);
    ComponentEncoder::default().module(&module).expect(EXPECT).encode().expect(EXPECT)
}

/// A filter whose body is `body`; unless it says otherwise it delivers.
pub fn filter(extra: &str, pages: u32, body: &str) -> Vec<u8> {
    let core = format!(
        r#"(module
            (import "hookgate:plugin/host@1.0.0" "log" (func $log (param i32 i32 i32)))
            (memory (export "memory") {pages})
            (global $heap (mut i32) (i32.const 4096))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at
                    (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
                (global.set $heap (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            {extra}
            (func (export "hookgate:plugin/filter@1.0.0#filter")
                (param i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                (local $n i32)
                {body}
                (i32.const 16)))"#
    );
    component("filter-plugin", &core)
}
