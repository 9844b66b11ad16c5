/// Makes a [`Filter`](crate::Filter) the component's filter.
#[macro_export]
macro_rules! export_filter {
    ($plugin:ty) => {
        $crate::__export!($plugin, Filter, filter, filter, export_filter_bindings);
    };
}

/// Makes a [`Transform`](crate::Transform) the component's transform.
#[macro_export]
macro_rules! export_transform {
    ($plugin:ty) => {
        $crate::__export!($plugin, Transform, transform, transform, export_transform_bindings);
    };
}

/// An instance is configured once and then asked; it lives as long as the component's instance.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($plugin:ty, $hook:ident, $module:ident, $method:ident, $export:ident) => {
        const _: () = {
            use $crate::bindings::$module as bindings;

            static PLUGIN: ::std::sync::OnceLock<$plugin> = ::std::sync::OnceLock::new();

            struct Component;

            impl bindings::exports::hookgate::plugin::$module::Guest for Component {
                fn configure(config: Vec<(String, String)>) -> Result<(), String> {
                    let config = $crate::Config::new(config);
                    let plugin = <$plugin as $crate::$hook>::configure(&config)?;
                    PLUGIN.set(plugin).map_err(|_| "configured twice".to_owned())
                }

                fn $method(
                    event: bindings::hookgate::plugin::types::Event,
                ) -> Result<<Self as $crate::bindings::Answer>::$hook, String> {
                    let plugin = PLUGIN.get().ok_or("not configured")?;
                    let event = $crate::Event::from(event);
                    <$plugin as $crate::$hook>::$method(plugin, &event).map(Into::into)
                }
            }

            impl $crate::bindings::Answer for Component {
                type Filter = $crate::bindings::filter::hookgate::plugin::types::Filtered;
                type Transform = $crate::bindings::transform::hookgate::plugin::types::Transformed;
            }

    bindings::$export!(Component with_types_in bindings);
        };
    };
}
