//! How a script gets in: the builder writes its name, a zero and its text into a buffer of this
//! module's memory, has it loaded, and reads from the same buffer what is wrong with it.

use std::cell::RefCell;

use crate::script::Script;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where to write that many bytes.
#[unsafe(no_mangle)]
extern "C" fn script_buffer(bytes: usize) -> *mut u8 {
    BUFFER.with_borrow_mut(|it| {
        *it = vec![0; bytes];
        it.as_mut_ptr()
    })
}

/// Runs the script. Gives its hooks as bits ([`crate::script::Hook`]), or as a negative number
/// the length of what is wrong with it.
#[unsafe(no_mangle)]
extern "C" fn script_load() -> i32 {
    let text = BUFFER.take();
    match load(&text) {
        Ok(hooks) => hooks as i32,
        Err(wrong) => {
            let length = wrong.len() as i32;
            BUFFER.set(wrong.into_bytes());
            -length
        }
    }
}

/// Where what is wrong is to be read.
#[unsafe(no_mangle)]
extern "C" fn script_wrong() -> *const u8 {
    BUFFER.with_borrow(|it| it.as_ptr())
}

fn load(text: &[u8]) -> Result<u32, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
    let (name, source) = text.split_once('\0').ok_or("it has no name")?;
    Script::load(name, source)
}
