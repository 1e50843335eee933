//! The one shape in which an error leaves a domain module.
//!
//! A [`Failure`] always says who is to blame, whether trying again can help, and what happened to
//! the money. What it looks like on the wire is decided in one place, `http::envelope`, in the
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

/// What went wrong, as a program reads it. `http::envelope` gives each its status.
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
    Internal,
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

    #[must_use]
    pub fn funds(mut self, funds: Funds) -> Self {
        self.funds = funds;
        self
    }

    /// Whether a token was taken, so that the same request could not be made again.
    #[must_use]
    pub fn took_a_token(&self) -> bool {
        matches!(self.funds, Funds::Returned(_) | Funds::Claimable)
    }

    #[must_use]
    pub fn retrying(mut self, after_secs: u64) -> Self {
        self.retry = Retry::After(after_secs);
        self
    }

    #[must_use]
    pub fn about(mut self, member: &'static str) -> Self {
        self.about = Some(Box::new(About::Member(member)));
        self
    }

    #[must_use]
    pub fn needing(mut self, hint: PaymentHint) -> Self {
        self.payment = Some(Box::new(hint));
        self
    }
}
