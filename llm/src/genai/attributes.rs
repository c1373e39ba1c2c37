//! The attributes of a span `chat`.

use throughline::telemetry::Attribute;

pub(crate) static ATTRIBUTES: &[Attribute] = &[
    Attribute::string("gen_ai.operation.name", "`chat`; there from the start, as the next four")
        .in_development(),
    Attribute::string(
        "gen_ai.provider.name",
        "The conventions' name for the provider, or the one it was given",
    )
    .in_development(),
    Attribute::string("gen_ai.request.model", "The model that the route is configured with").in_development(),
    Attribute::string("server.address", "The host that is called"),
    Attribute::int("server.port", "The port that is called"),
    Attribute::boolean("gen_ai.request.stream", "True for a streamed answer, else absent").in_development(),
    Attribute::int("gen_ai.request.choice.count", "How many choices were asked for, if not 1")
        .in_development(),
    Attribute::int("gen_ai.request.max_tokens", "The bound on tokens that was asked for").in_development(),
    Attribute::double("gen_ai.request.temperature", "As asked for").in_development(),
    Attribute::double("gen_ai.request.top_p", "As asked for").in_development(),
    Attribute::double("gen_ai.request.frequency_penalty", "As asked for").in_development(),
    Attribute::double("gen_ai.request.presence_penalty", "As asked for").in_development(),
    Attribute::int("gen_ai.request.top_k", "As asked for").in_development(),
    Attribute::int("gen_ai.request.seed", "As asked for").in_development(),
    Attribute::strings("gen_ai.request.stop_sequences", "As asked for, at most 8 of at most 64 characters")
        .in_development(),
    Attribute::string("gen_ai.output.type", "`text` or `json`, if a format was asked for").in_development(),
    Attribute::string("gen_ai.response.id", "As the provider said, cut").in_development(),
    Attribute::string("gen_ai.response.model", "As the provider said, cut").in_development(),
    Attribute::strings(
        "gen_ai.response.finish_reasons",
        "Per choice, why it ended; `error` where a stream broke off",
    )
    .in_development(),
    Attribute::double(
        "gen_ai.response.time_to_first_chunk",
        "From a streamed call to its first chunk, in seconds",
    )
    .in_development(),
    Attribute::int("gen_ai.usage.input_tokens", "Tokens read, cached ones included, if the provider said so")
        .in_development(),
    Attribute::int("gen_ai.usage.output_tokens", "Tokens written, those of the reasoning included")
        .in_development(),
    Attribute::int(
        "gen_ai.usage.cache_read.input_tokens",
        "Tokens that the provider had in its cache, if any",
    )
    .in_development(),
    Attribute::int(
        "gen_ai.usage.cache_creation.input_tokens",
        "Tokens that the provider put into its cache, if any; by the names of 1.41",
    )
    .in_development(),
    Attribute::int(
        "gen_ai.usage.cache_write.input_tokens",
        "Tokens that the provider put into its cache, if any; by the newer names",
    )
    .in_development(),
    Attribute::int("gen_ai.usage.reasoning.output_tokens", "Tokens that were thought and not said, if any")
        .in_development(),
    Attribute::string("gen_ai.input.messages", "What was asked, as JSON; only with content switched on")
        .in_development(),
    Attribute::string("gen_ai.output.messages", "What was answered, as JSON; only with content switched on")
        .in_development(),
];
