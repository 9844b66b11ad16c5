/// Makes a [`Plugin`](crate::Plugin) the component's, with the hooks that are named:
/// `export!(MyPlugin: filter, transform);`. The gateway asks a plugin only what it exports.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($hook:ident),+ $(,)?) => {
        const _: () = {
            static PLUGIN: ::std::sync::OnceLock<$plugin> = ::std::sync::OnceLock::new();

            struct Component;

            impl Component {
                fn plugin() -> ::std::result::Result<&'static $plugin, String> {
                    PLUGIN.get().ok_or_else(|| "not configured".to_owned())
                }
            }

            impl $crate::bindings::setup::exports::hookgate::plugin::setup::Guest for Component {
                fn configure(
                    config: Vec<(String, String)>,
                ) -> ::std::result::Result<(), String> {
                    let config = $crate::Config::new(config);
                    let plugin = <$plugin as $crate::Plugin>::configure(&config)?;
                    PLUGIN.set(plugin).map_err(|_| "configured twice".to_owned())
                }
            }

            $crate::bindings::setup::export_setup_bindings!(
                Component with_types_in $crate::bindings::setup
            );

            $($crate::__hook!($plugin, $hook);)+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    ($plugin:ty, filter) => {
        impl $crate::bindings::filter::exports::hookgate::plugin::filter::Guest for Component {
            fn filter(
                event: $crate::Event,
            ) -> ::std::result::Result<$crate::Filtered, String> {
                <$plugin as $crate::Plugin>::filter(Self::plugin()?, &event)
            }
        }
        $crate::bindings::filter::export_filter_bindings!(
            Component with_types_in $crate::bindings::filter
        );
    };
    ($plugin:ty, transform) => {
        impl $crate::bindings::transform::exports::hookgate::plugin::transform::Guest
            for Component
        {
            fn transform(
                event: $crate::Event,
            ) -> ::std::result::Result<$crate::Transformed, String> {
                <$plugin as $crate::Plugin>::transform(Self::plugin()?, &event)
            }
        }
        $crate::bindings::transform::export_transform_bindings!(
            Component with_types_in $crate::bindings::transform
        );
    };
    ($plugin:ty, ingest) => {
        impl $crate::bindings::ingest::exports::hookgate::plugin::ingest::Guest for Component {
            fn ingest(
                event: $crate::Incoming,
            ) -> ::std::result::Result<$crate::Ingested, String> {
                <$plugin as $crate::Plugin>::ingest(Self::plugin()?, &event)
            }
        }
        $crate::bindings::ingest::export_ingest_bindings!(
            Component with_types_in $crate::bindings::ingest
        );
    };
    ($plugin:ty, classify) => {
        impl $crate::bindings::classify::exports::hookgate::plugin::classify::Guest
            for Component
        {
            fn classify(
                response: $crate::Response,
            ) -> ::std::result::Result<$crate::Classified, String> {
                <$plugin as $crate::Plugin>::classify(Self::plugin()?, &response)
            }
        }
        $crate::bindings::classify::export_classify_bindings!(
            Component with_types_in $crate::bindings::classify
        );
    };
    ($plugin:ty, sign) => {
        impl $crate::bindings::sign::exports::hookgate::plugin::sign::Guest for Component {
            fn sign(
                request: $crate::Request,
            ) -> ::std::result::Result<Vec<(String, String)>, String> {
                let keys = $crate::Keys::of_the_gateway();
                <$plugin as $crate::Plugin>::sign(Self::plugin()?, &request, &keys)
            }
        }
        $crate::bindings::sign::export_sign_bindings!(
            Component with_types_in $crate::bindings::sign
        );
    };
    ($plugin:ty, $other:ident) => {
        compile_error!(concat!(
            "`",
            stringify!($other),
            "` is no hook; there are filter, transform, ingest, classify and sign",
        ));
    };
}
