//! Service tiers: the same work, faster and dearer or slower and cheaper.
//!
//! Which one it was, the answer says; which ones it may be, the request says. The prices of a request are
//! cut down to those that it allows, so that no answer can name a dearer one: see [`Prices::for_service`].

use super::rate::Prices;
use super::usage::Usage;

/// How a request is served, from cheap to dear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Flex,
    #[default]
    Standard,
    Priority,
}

/// How a request asks to be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskedService {
    /// It says nothing, or wants the standard service.
    #[default]
    Standard,
    Flex,
    Priority,
    /// The upstream may choose.
    Any,
}

impl Service {
    /// Those that have prices of their own.
    pub const PRICED_APART: [Self; 2] = [Self::Flex, Self::Priority];

    /// How the names of its prices end.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Flex => "_flex",
            Self::Standard => "",
            Self::Priority => "_priority",
        }
    }
}

impl AskedService {
    /// What an answer that says nothing was served as.
    fn assumed(self) -> Service {
        match self {
            Self::Flex => Service::Flex,
            Self::Standard | Self::Any => Service::Standard,
            Self::Priority => Service::Priority,
        }
    }

    /// The dearest service that it can be charged for. What was asked to be cheap may be served as usual.
    fn dearest(self) -> Service {
        match self {
            Self::Standard | Self::Flex => Service::Standard,
            Self::Priority | Self::Any => Service::Priority,
        }
    }
}

impl Prices {
    /// The prices of a request that wants to be served like this: `self` is what an answer costs that does
    /// not say how it was served, and `services` are all that one may name.
    #[must_use]
    pub fn for_service(mut self, wanted: AskedService) -> Self {
        if self.services.is_empty() {
            return self;
        }
        let mut services = std::mem::take(&mut self.services);
        services.push((Service::Standard, self.clone()));
        services.retain(|(service, _)| *service <= wanted.dearest());
        let assumed = services.iter().find(|(service, _)| *service == wanted.assumed());
        let assumed = assumed.map_or(self, |(_, prices)| prices.clone());
        Self { services, ..assumed }
    }

    /// What this usage is charged by. A service without a price of its own is the standard one.
    #[must_use]
    pub fn for_usage(&self, usage: &Usage) -> &Self {
        let of = |service| self.services.iter().find(|(priced, _)| *priced == service).map(|(_, prices)| prices);
        let served = usage.service.and_then(|service| of(service).or_else(|| of(Service::Standard)));
        served.unwrap_or(self).for_input(usage.longest_input())
    }

    /// The service whose prices these are for this usage. `self` was cut down to what the request `wanted`.
    #[must_use]
    pub fn charged_as(&self, usage: &Usage, wanted: AskedService) -> Service {
        let told = usage.service.unwrap_or(wanted.assumed());
        let is_priced = self.services.iter().any(|(priced, _)| *priced == told);
        if is_priced { told } else { Service::Standard }
    }

    /// Whether a request that wants to be served like this can be priced. What is cheaper elsewhere is served
    /// at the standard price; what is dearer needs its own.
    #[must_use]
    pub fn sells(&self, wanted: AskedService) -> bool {
        wanted != AskedService::Priority || self.services.iter().any(|(service, _)| *service == Service::Priority)
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    fn at(prompt: u32) -> Prices {
        Prices { prompt: Decimal::from(prompt), ..Prices::default() }
    }

    /// What an answer is charged by, per wish and per service that it names: none, flex, standard, priority.
    #[test]
    fn the_service_that_was_had_is_charged_as_far_as_it_was_wanted() {
        let all = Prices { services: vec![(Service::Flex, at(1)), (Service::Priority, at(4))], ..at(2) };
        let dear = Prices { services: vec![(Service::Priority, at(4))], ..at(2) };
        for (what, prices, wanted, charged) in [
            ("all", &all, AskedService::Standard, [2, 1, 2, 2]),
            ("all", &all, AskedService::Flex, [1, 1, 2, 2]),
            ("all", &all, AskedService::Priority, [4, 1, 2, 4]),
            ("all", &all, AskedService::Any, [2, 1, 2, 4]),
            ("dear", &dear, AskedService::Standard, [2, 2, 2, 2]),
            ("dear", &dear, AskedService::Flex, [2, 2, 2, 2]),
            ("dear", &dear, AskedService::Priority, [4, 2, 2, 4]),
            ("dear", &dear, AskedService::Any, [2, 2, 2, 4]),
            ("one", &at(2), AskedService::Any, [2, 2, 2, 2]),
            ("one", &at(2), AskedService::Flex, [2, 2, 2, 2]),
        ] {
            let card = prices.clone().for_service(wanted);
            let told = [None, Some(Service::Flex), Some(Service::Standard), Some(Service::Priority)];
            let had = told.map(|service| card.for_usage(&Usage { service, ..Usage::default() }).prompt);
            assert_eq!(had, charged.map(Decimal::from), "{what} {wanted:?}");
        }
        assert!(dear.sells(AskedService::Priority) && !at(2).sells(AskedService::Priority));
        assert!(at(2).sells(AskedService::Any) && at(2).sells(AskedService::Flex));
    }
}
