//! What money moves for. The ledger keeps it as a text beside each transfer.

/// What a transfer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferKind {
    /// What a request cost. A trigger writes it when a hold ends.
    Charge,
    /// A client's token became credit.
    Redeem,
    /// A client's Lightning payment became credit.
    TopUp,
    /// What is left of a token that rode on one request is owed to its owner.
    Change,
    /// The balance of a key is owed to its owner, who asked for it.
    Refund,
    /// The same of a key whose time is over.
    Expiry,
    /// Earnings are owed to the operator.
    Payout,
    /// What was owed has left, in a token or over Lightning.
    PaidOut,
    /// What was owed, or a part of it, is back on its account.
    Returned,
    /// What a mint took.
    MintFee,
    /// What came in beside what was owed.
    Rounding,
    /// Change that nobody claimed became income.
    Unclaimed,
    /// The operator moved money between a key and the income.
    Adjustment,
    /// What a key paid for its child keys.
    ChildKey,
    /// Onto the account of a voucher, or from there to the key that it filled.
    Voucher,
    /// A voucher was taken back.
    VoucherRevoked,
    /// The time of a voucher is over.
    VoucherExpired,
    /// The ledger was brought in line with the ecash after a restored copy.
    Recovery,
}

impl TransferKind {
    pub const ALL: [Self; 18] = [
        Self::Charge,
        Self::Redeem,
        Self::TopUp,
        Self::Change,
        Self::Refund,
        Self::Expiry,
        Self::Payout,
        Self::PaidOut,
        Self::Returned,
        Self::MintFee,
        Self::Rounding,
        Self::Unclaimed,
        Self::Adjustment,
        Self::ChildKey,
        Self::Voucher,
        Self::VoucherRevoked,
        Self::VoucherExpired,
        Self::Recovery,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Redeem => "redeem",
            Self::TopUp => "topup",
            Self::Change => "change",
            Self::Refund => "refund",
            Self::Expiry => "expiry",
            Self::Payout => "payout",
            Self::PaidOut => "paid_out",
            Self::Returned => "returned",
            Self::MintFee => "mint_fee",
            Self::Rounding => "rounding",
            Self::Unclaimed => "unclaimed",
            Self::Adjustment => "adjustment",
            Self::ChildKey => "child_key",
            Self::Voucher => "voucher",
            Self::VoucherRevoked => "voucher_revoked",
            Self::VoucherExpired => "voucher_expired",
            Self::Recovery => "recovery",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own_and_is_found_by_it() {
        for kind in TransferKind::ALL {
            assert_eq!(TransferKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(TransferKind::parse("redeemed"), None);
    }

    /// Statements name kinds as texts, and one that there is not would find nothing, silently.
    #[test]
    fn statements_name_kinds_that_there_are() {
        for (text, before) in [
            (include_str!("../admin/overview/repo.rs"), "FROM transfers WHERE kind = '"),
            (include_str!("../wallet/holdings/repo.rs"), "WHERE kind = '"),
            (include_str!("../migrations/0021_charges.postgres.sql"), "NEW.charged, '"),
            (include_str!("../migrations/0021_charges.sqlite.sql"), "NEW.charged, '"),
            (include_str!("../migrations/0031_request_sums.sql"), "ON transfers (amount) WHERE kind = '"),
        ] {
            let named: Vec<&str> = text.split(before).skip(1).filter_map(|rest| rest.split('\'').next()).collect();
            assert!(!named.is_empty(), "{before} is not there");
            for name in named {
                assert!(TransferKind::parse(name).is_some(), "{name}");
            }
        }
    }
}
