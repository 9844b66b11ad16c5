use std::cell::OnceCell;

use rquickjs::{
    CatchResultExt, CaughtError, Coerced, Context, Ctx, Exception, Function, Module, Object,
    Persistent, Result as JsResult, Runtime, Value,
    function::{Args, Rest},
};

use crate::bindings::hookgate::plugin::host::{Level, log};
use crate::chance;

/// What a script can be asked, each a bit of what loading gives.
#[derive(Clone, Copy)]
pub(crate) enum Hook {
    Configure,
    Filter,
    Transform,
    Ingest,
    Classify,
    Sign,
}

const HOOKS: [(Hook, &str); 6] = [
    (Hook::Configure, "configure"),
    (Hook::Filter, "filter"),
    (Hook::Transform, "transform"),
    (Hook::Ingest, "ingest"),
    (Hook::Classify, "classify"),
    (Hook::Sign, "sign"),
];

/// Deeper recursion is a RangeError; the gateway's own limit is behind it.
const STACK_BYTES_MAX: usize = 192 * 1024;

/// The script, as it stands after its top level has run.
pub(crate) struct Script {
    context: Context,
    /// What the hooks see as `this`.
    this: Persistent<Object<'static>>,
    hooks: [Option<Persistent<Function<'static>>>; HOOKS.len()],
}

thread_local! {
    static SCRIPT: OnceCell<Script> = const { OnceCell::new() };
}

impl Script {
    /// Runs a script's top level and keeps its hooks; tells which there are.
    pub(crate) fn load(name: &str, source: &str) -> Result<u32, String> {
        let broken = |it: rquickjs::Error| it.to_string();
        let runtime = Runtime::new().map_err(broken)?;
        runtime.set_max_stack_size(STACK_BYTES_MAX);
        let context = Context::full(&runtime).map_err(broken)?;
        let script = context.with(|ctx| -> Result<_, String> {
            let globals = || -> JsResult<()> {
                let math: Object<'_> = ctx.globals().get("Math")?;
                math.set("random", Function::new(ctx.clone(), chance::random)?)?;
                ctx.globals().set("console", console(&ctx)?)
            };
            globals().catch(&ctx).map_err(|it| tell(&it))?;
            let loaded = find(&ctx, name, source).catch(&ctx).map_err(|it| tell(&it))?;
            let (this, functions) = loaded;
            let hooks = functions.map(|it| it.map(|it| Persistent::save(&ctx, it)));
            let this = Persistent::save(&ctx, this);
            Ok(Self { context: context.clone(), this, hooks })
        })?;
        runtime.run_gc();
        let bits = script.hooks.iter().enumerate();
        let bits = bits.filter(|(_, it)| it.is_some()).fold(0, |bits, (place, _)| bits | 1 << place);
        SCRIPT.with(|it| it.set(script)).map_err(|_| "a script is loaded already".to_owned())?;
        Ok(bits)
    }

    /// Calls a hook and reads its answer. An answer that is a promise is waited for.
    pub(crate) fn ask<T>(
        hook: Hook,
        arguments: impl for<'js> FnOnce(&Ctx<'js>, &mut Args<'js>) -> JsResult<()>,
        read: impl for<'js> FnOnce(&Ctx<'js>, Value<'js>) -> JsResult<T>,
    ) -> Result<T, String> {
        SCRIPT.with(|script| {
            let script = script.get().ok_or("there is no script")?;
            script.context.with(|ctx| {
                let asked = || {
                    let function = script.hooks[hook as usize].clone();
                    let function = function.expect("only hooks that are there are exported");
                    let function = function.restore(&ctx)?;
                    let mut args = Args::new(ctx.clone(), 2);
                    args.this(script.this.clone().restore(&ctx)?)?;
                    arguments(&ctx, &mut args)?;
                    read(&ctx, settled(function.call_arg(args)?)?)
                };
                asked().catch(&ctx).map_err(|it| tell(&it))
            })
        })
    }
}

/// The hooks: of what is exported as default, else of what is exported by name.
fn find<'js>(
    ctx: &Ctx<'js>,
    name: &str,
    source: &str,
) -> JsResult<(Object<'js>, [Option<Function<'js>>; HOOKS.len()])> {
    let (module, ran) = Module::declare(ctx.clone(), name, source)?.eval()?;
    ran.finish::<()>()?;
    let named = module.namespace()?;
    let default: Value<'js> = named.get("default")?;
    let this = default.into_object().unwrap_or(named);
    let mut hooks = [const { None }; HOOKS.len()];
    for ((_, name), hook) in HOOKS.iter().zip(&mut hooks) {
        let found: Value<'js> = this.get(*name)?;
        if found.is_undefined() {
            continue;
        }
        let wrong = || Exception::throw_type(ctx, &format!("`{name}` is exported and no function"));
        *hook = Some(found.into_function().ok_or_else(wrong)?);
    }
    Ok((this, hooks))
}

fn settled(answer: Value<'_>) -> JsResult<Value<'_>> {
    match answer.as_promise() {
        None => Ok(answer),
        Some(promise) => promise.finish(),
    }
}

/// What an author is told: the error, and the place in the script.
fn tell(error: &CaughtError<'_>) -> String {
    match error {
        CaughtError::Exception(it) => {
            let name: Option<String> = it.get("name").ok();
            let message = it.message().unwrap_or_default();
            let stack = it.stack().unwrap_or_default();
            let place = stack.lines().map(str::trim).find(|it| !it.contains("(native)"));
            let place = place.map(|it| format!(" ({it})")).unwrap_or_default();
            format!("{}: {message}{place}", name.unwrap_or_else(|| "Error".to_owned()))
        }
        CaughtError::Value(it) => {
            let text = it.as_string().and_then(|it| it.to_string().ok());
            text.unwrap_or_else(|| "something was thrown that is no Error".to_owned())
        }
        CaughtError::Error(rquickjs::Error::WouldBlock) => {
            "it gives a promise that nothing will ever settle".to_owned()
        }
        CaughtError::Error(it) => it.to_string(),
    }
}

/// `console`: each line goes to the plugin's log.
fn console<'js>(ctx: &Ctx<'js>) -> JsResult<Object<'js>> {
    let console = Object::new(ctx.clone())?;
    for (name, level) in [
        ("debug", Level::Debug),
        ("log", Level::Info),
        ("info", Level::Info),
        ("warn", Level::Warn),
        ("error", Level::Error),
    ] {
        let write = move |ctx: Ctx<'js>, parts: Rest<Value<'js>>| -> JsResult<()> {
            let shown: JsResult<Vec<_>> = parts.0.into_iter().map(|it| show(&ctx, it)).collect();
            log(level, &shown?.join(" "));
            Ok(())
        };
        console.set(name, Function::new(ctx.clone(), write)?)?;
    }
    Ok(console)
}

fn show<'js>(ctx: &Ctx<'js>, value: Value<'js>) -> JsResult<String> {
    if value.is_object() && !value.is_error() && !value.is_function() {
        if let Some(json) = ctx.json_stringify(value.clone())? {
            return json.to_string();
        }
    }
    Ok(value.get::<Coerced<String>>()?.0)
}
