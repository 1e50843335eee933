//! The one shape in which an error leaves a domain module.
//!
//! A [`Failure`] always says who is to blame, whether trying again can help, and what happened to
//! the money. Its status and its names are in one table, [`facts`]; its shape is given by `http::envelope`, in the
//! client's own dialect.

use crate::money::Msat;

/// Who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The request is wrong.
    Client,
    /// The payment is missing, insufficient or no good.
    Payment,
    /// The API behind this node failed.
    Upstream,
    /// This node, its mint or its price feed failed.
    Node,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// Seconds to wait.
    After(u64),
}

/// What happened to the client's money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Funds {
    /// Nothing was taken; a token that came along is still the client's and spendable.
    Untouched,
    /// All of it is back on the key that paid.
    OnAccount,
    /// All of it (or what was left) comes back as this token.
    Returned(String),
    /// It is the node's to give back, and can be fetched from the refund endpoint.
    Claimable,
    /// The mint has not said yet whether it took the token. The operation with this id finds out.
    Pending(String),
}

/// What went wrong, as a program reads it. [`facts`] gives each its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    MissingApiKey,
    Unauthorized,
    InvalidApiKey,
    KeyNotFound,
    PaymentRequired,
    InsufficientBalance,
    /// The key's own limit, which more money does not raise.
    BalanceLimitExceeded,
    KeyExpired,
    /// By the operator.
    KeyBlocked,
    /// What only a top key may.
    ChildKey,
    NotYourChild,
    ChildNotFound,
    InvalidRequest,
    InvalidJson,
    InvalidModel,
    /// The model is not reached by the way that the client wants.
    InvalidModelPath,
    /// The model is not sold for what the request wants of it.
    ModalityNotPriced,
    /// The model, or whoever serves it, is known not to do what a member of the request asks for.
    UnsupportedParameter,
    /// A route of the API that cannot be sold by the request.
    UnsupportedPath,
    PayloadTooLarge,
    InvalidToken,
    UntrustedMint,
    TokenAlreadySpent,
    TokenZeroValue,
    TokenRedemptionFailed,
    TokenFeesExceedAmount,
    MintUnreachable,
    MintRateLimited,
    RedemptionPending,
    SourceMintUnreachable,
    ForeignSwapFailed,
    /// A foreign mint took the token and paid nothing.
    ForeignSwapLost,
    PriceUnavailable,
    UpstreamUnavailable,
    UpstreamFailed,
    UpstreamTimedOut,
    UpstreamRejected,
    UpstreamRateLimited,
    ReceiptNotFound,
    ReceiptPending,
    IdempotencyKeyReused,
    IdempotencyInProgress,
    IdempotentOutcomeNotKept,
    /// The mint that holds it is not one of this node's any more.
    MintGone,
    /// There is too little ecash of a mint for what is to go out.
    MintShort,
    VoucherNotFound,
    VoucherRedeemed,
    VoucherRevoked,
    VoucherExpired,
    RefundNotFound,
    RefundSwept,
    RefundPending,
    RefundNothing,
    RefundTooSmall,
    RefundOngoing,
    LightningFailed,
    InvoiceNotFound,
    InvoiceFailed,
    TopUpUnauthorized,
    TopUpKeyFormat,
    TopUpKeyNotFound,
    NotFound,
    MethodNotAllowed,
    UpgradeRequired,
    TooManyRequests,
    ShuttingDown,
    /// There is no room for another large request now.
    Overloaded,
    /// The operator has stopped the sale.
    Maintenance,
    /// The operator takes no new money.
    NotTaken,
    /// The node was restored from a copy, and is not sure of its ecash yet.
    Recovering,
    /// The operator has ended the request.
    Aborted,
    Internal,
}

impl Code {
    /// All of them; a test compares.
    pub const ALL: &[Self] = &[
        Self::MissingApiKey,
        Self::Unauthorized,
        Self::InvalidApiKey,
        Self::KeyNotFound,
        Self::PaymentRequired,
        Self::InsufficientBalance,
        Self::BalanceLimitExceeded,
        Self::KeyExpired,
        Self::KeyBlocked,
        Self::ChildKey,
        Self::NotYourChild,
        Self::ChildNotFound,
        Self::InvalidRequest,
        Self::InvalidJson,
        Self::InvalidModel,
        Self::InvalidModelPath,
        Self::ModalityNotPriced,
        Self::UnsupportedParameter,
        Self::UnsupportedPath,
        Self::PayloadTooLarge,
        Self::InvalidToken,
        Self::UntrustedMint,
        Self::TokenAlreadySpent,
        Self::TokenZeroValue,
        Self::TokenRedemptionFailed,
        Self::TokenFeesExceedAmount,
        Self::MintUnreachable,
        Self::MintRateLimited,
        Self::RedemptionPending,
        Self::SourceMintUnreachable,
        Self::ForeignSwapFailed,
        Self::ForeignSwapLost,
        Self::PriceUnavailable,
        Self::UpstreamUnavailable,
        Self::UpstreamFailed,
        Self::UpstreamTimedOut,
        Self::UpstreamRejected,
        Self::UpstreamRateLimited,
        Self::ReceiptNotFound,
        Self::ReceiptPending,
        Self::IdempotencyKeyReused,
        Self::IdempotencyInProgress,
        Self::IdempotentOutcomeNotKept,
        Self::MintGone,
        Self::MintShort,
        Self::VoucherNotFound,
        Self::VoucherRedeemed,
        Self::VoucherRevoked,
        Self::VoucherExpired,
        Self::RefundNotFound,
        Self::RefundSwept,
        Self::RefundPending,
        Self::RefundNothing,
        Self::RefundTooSmall,
        Self::RefundOngoing,
        Self::LightningFailed,
        Self::InvoiceNotFound,
        Self::InvoiceFailed,
        Self::TopUpUnauthorized,
        Self::TopUpKeyFormat,
        Self::TopUpKeyNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::UpgradeRequired,
        Self::TooManyRequests,
        Self::ShuttingDown,
        Self::Overloaded,
        Self::Maintenance,
        Self::NotTaken,
        Self::Recovering,
        Self::Aborted,
        Self::Internal,
    ];
}

/// What a client reads of a failure beside its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub status: u16,
    /// Its `type`.
    pub kind: &'static str,
    pub code: &'static str,
}

/// Status, `type` and `code` of a failure.
#[must_use]
#[expect(clippy::too_many_lines, reason = "one table")]
pub const fn facts(code: Code) -> Facts {
    const INVALID: &str = "invalid_request_error";
    let (status, kind, code) = match code {
        Code::MissingApiKey => (401, INVALID, "missing_api_key"),
        Code::Unauthorized => (401, INVALID, "unauthorized"),
        Code::InvalidApiKey => (401, INVALID, "invalid_api_key"),
        Code::KeyNotFound => (401, INVALID, "key_not_found"),
        Code::PaymentRequired => (402, "insufficient_quota", "payment_required"),
        Code::InsufficientBalance => (402, "insufficient_quota", "insufficient_balance"),
        Code::BalanceLimitExceeded => (402, "insufficient_quota", "balance_limit_exceeded"),
        Code::KeyExpired => (403, INVALID, "key_expired"),
        Code::KeyBlocked => (403, INVALID, "key_blocked"),
        Code::ChildKey => (400, INVALID, "child_key"),
        Code::NotYourChild => (403, INVALID, "not_your_child_key"),
        Code::ChildNotFound => (404, INVALID, "child_key_not_found"),
        Code::InvalidRequest => (400, INVALID, "invalid_request"),
        Code::InvalidJson => (400, INVALID, "invalid_json"),
        Code::InvalidModel => (400, INVALID, "invalid_model"),
        Code::InvalidModelPath => (404, INVALID, "invalid_model_path"),
        Code::ModalityNotPriced => (400, INVALID, "modality_not_priced"),
        Code::UnsupportedParameter => (400, INVALID, "unsupported_parameter"),
        Code::UnsupportedPath => (404, "not_found", "unsupported_path"),
        Code::PayloadTooLarge => (413, INVALID, "payload_too_large"),
        Code::InvalidToken => (400, "invalid_token", "invalid_cashu_token"),
        Code::UntrustedMint => (400, "untrusted_mint", "cashu_untrusted_source_mint"),
        Code::TokenAlreadySpent => (400, "token_already_spent", "cashu_token_already_spent"),
        Code::TokenZeroValue => (400, "cashu_error", "cashu_token_zero_value"),
        Code::TokenRedemptionFailed => (400, "cashu_error", "cashu_token_redemption_failed"),
        Code::TokenFeesExceedAmount => (422, "mint_error", "cashu_token_swap_fees_exceed_amount"),
        Code::MintUnreachable => (503, "mint_unreachable", "cashu_mint_unreachable"),
        Code::MintRateLimited => (503, "mint_rate_limited", "cashu_mint_rate_limited"),
        Code::RedemptionPending => (503, "mint_timeout", "cashu_mint_timeout"),
        Code::SourceMintUnreachable => (503, "mint_unreachable", "cashu_source_mint_unreachable"),
        Code::ForeignSwapFailed => (422, "mint_error", "cashu_foreign_mint_swap_failed"),
        Code::ForeignSwapLost => (502, "mint_error", "cashu_foreign_mint_swap_failed"),
        Code::PriceUnavailable => (503, "api_error", "price_unavailable"),
        Code::UpstreamUnavailable => (503, "upstream_error", "upstream_unavailable"),
        Code::UpstreamFailed => (502, "upstream_error", "upstream_error"),
        Code::UpstreamTimedOut => (504, "upstream_error", "upstream_timeout"),
        Code::UpstreamRejected => (400, INVALID, "upstream_rejected"),
        Code::UpstreamRateLimited => (429, "rate_limit_error", "UPSTREAM_RATE_LIMIT"),
        Code::ReceiptNotFound => (404, INVALID, "receipt_not_found"),
        Code::ReceiptPending => (425, INVALID, "receipt_pending"),
        Code::IdempotencyKeyReused => (409, INVALID, "idempotency_key_reused"),
        Code::IdempotencyInProgress => (409, INVALID, "idempotency_in_progress"),
        Code::IdempotentOutcomeNotKept => (409, INVALID, "idempotent_outcome_not_kept"),
        Code::MintGone => (503, "mint_error", "mint_not_configured"),
        Code::MintShort => (503, "mint_error", "mint_short"),
        Code::VoucherNotFound => (404, INVALID, "voucher_not_found"),
        Code::VoucherRedeemed => (409, INVALID, "voucher_already_redeemed"),
        Code::VoucherRevoked => (410, INVALID, "voucher_revoked"),
        Code::VoucherExpired => (410, INVALID, "voucher_expired"),
        Code::RefundNotFound => (404, INVALID, "refund_not_found"),
        Code::RefundSwept => (410, INVALID, "refund_swept"),
        Code::RefundPending => (425, INVALID, "refund_pending"),
        Code::RefundNothing => (400, INVALID, "no_balance_to_refund"),
        Code::RefundTooSmall => (400, INVALID, "balance_too_small_to_refund"),
        Code::RefundOngoing => (400, INVALID, "refund_ongoing_requests"),
        Code::LightningFailed => (502, "lightning_error", "lightning_payment_failed"),
        Code::InvoiceNotFound => (404, INVALID, "invoice_not_found"),
        Code::InvoiceFailed => (503, "mint_error", "invoice_creation_failed"),
        Code::TopUpUnauthorized => (401, INVALID, "topup_authorization_required"),
        Code::TopUpKeyFormat => (400, INVALID, "topup_invalid_api_key_format"),
        Code::TopUpKeyNotFound => (404, INVALID, "topup_api_key_not_found"),
        Code::NotFound => (404, "not_found", "not_found"),
        Code::MethodNotAllowed => (405, INVALID, "method_not_allowed"),
        Code::UpgradeRequired => (426, INVALID, "upgrade_required"),
        Code::TooManyRequests => (429, "rate_limit_error", "rate_limit_exceeded"),
        Code::ShuttingDown => (503, "api_error", "shutting_down"),
        Code::Overloaded => (503, "api_error", "overloaded"),
        Code::Maintenance => (503, "api_error", "maintenance"),
        Code::NotTaken => (403, INVALID, "new_money_not_taken"),
        Code::Recovering => (503, "api_error", "recovering"),
        Code::Aborted => (503, "api_error", "request_aborted"),
        Code::Internal => (500, "api_error", "internal_error"),
    };
    Facts { status, kind, code }
}

/// What a client must pay, where that is the problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentHint {
    pub required: Msat,
    pub available: Option<Msat>,
    pub model: Option<String>,
}

/// An error that may be shown to the client. Causes are logged where they happen, never carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub blame: Blame,
    pub retry: Retry,
    pub funds: Funds,
    pub code: Code,
    /// Whole sentence for a person. Never contains a secret or a foreign address.
    pub message: String,
    pub payment: Option<Box<PaymentHint>>,
    /// Status, type and code of the upstream, where its own answer is passed on.
    pub upstream: Option<Box<UpstreamAnswer>>,
    /// Where to look.
    pub about: Option<Box<About>>,
}

/// What a failure points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The request whose receipt tells more, by its id.
    Receipt(String),
    /// A member of this request.
    Member(&'static str),
    /// That this model is limited for so many seconds.
    Limit { model: String, secs: u64 },
}

/// An upstream's refusal, as far as the client may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAnswer {
    pub status: u16,
    pub kind: Option<String>,
    pub code: Option<String>,
    pub param: Option<String>,
}

impl Failure {
    fn with(blame: Blame, retry: Retry, code: Code, message: impl Into<String>) -> Self {
        Self {
            blame,
            retry,
            funds: Funds::Untouched,
            code,
            message: message.into(),
            payment: None,
            upstream: None,
            about: None,
        }
    }

    /// The request is wrong; nothing was taken.
    #[must_use]
    pub fn client(code: Code, message: impl Into<String>) -> Self {
        Self::with(Blame::Client, Retry::Never, code, message)
    }

    /// The payment is no good; nothing was taken.
    #[must_use]
    pub fn payment(code: Code, message: impl Into<String>) -> Self {
        Self::with(Blame::Payment, Retry::Never, code, message)
    }

    /// The upstream failed.
    #[must_use]
    pub fn upstream(code: Code, message: impl Into<String>) -> Self {
        Self::with(Blame::Upstream, Retry::Never, code, message)
    }

    /// This node cannot serve right now.
    #[must_use]
    pub fn unavailable(code: Code, message: impl Into<String>, retry_after_secs: u64) -> Self {
        Self::with(Blame::Node, Retry::After(retry_after_secs), code, message)
    }

    /// Something broke in this node. The cause belongs in the log, under the request id.
    #[must_use]
    pub fn internal() -> Self {
        Self::with(
            Blame::Node,
            Retry::Never,
            Code::Internal,
            "The node could not do this. The operator's log has the reason under this request id.",
        )
    }

    /// Says what happened to the money.
    #[must_use]
    pub fn funds(mut self, funds: Funds) -> Self {
        self.funds = funds;
        self
    }

    /// Its `type` and `code` as a client sees them, whole or in a stream: the upstream's own, where its answer is
    /// passed on.
    #[must_use]
    pub fn names(&self) -> (&str, &str) {
        let Facts { kind, code, .. } = facts(self.code);
        let own = self.upstream.as_deref();
        (
            own.and_then(|answer| answer.kind.as_deref()).unwrap_or(kind),
            own.and_then(|answer| answer.code.as_deref()).unwrap_or(code),
        )
    }

    /// Whether a token was taken, so that the same request could not be made again.
    #[must_use]
    pub fn took_a_token(&self) -> bool {
        matches!(self.funds, Funds::Returned(_) | Funds::Claimable)
    }

    /// Says that the same request may succeed after so many seconds.
    #[must_use]
    pub fn retrying(mut self, after_secs: u64) -> Self {
        self.retry = Retry::After(after_secs);
        self
    }

    /// Says which member of the request is wrong.
    #[must_use]
    pub fn about(mut self, member: &'static str) -> Self {
        self.about = Some(Box::new(About::Member(member)));
        self
    }

    /// Says how much is needed, and how much there is.
    #[must_use]
    pub fn needing(mut self, hint: PaymentHint) -> Self {
        self.payment = Some(Box::new(hint));
        self
    }
}
