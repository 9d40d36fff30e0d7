"""Vocabulary: the purposes of the W3C Data Privacy Vocabulary (DPV), by which other systems know ours.

The terms are those of the module `purposes` of the version named here; `Purpose` itself says nothing and is
left out. Source: https://w3id.org/dpv/2.3
"""

from __future__ import annotations

from typing import Final

DPV: Final = "2.3"
PURPOSES: Final = frozenset(
    """
    AcademicResearch AccountManagement Advertising AgeVerification CombatClimateChange CommercialPurpose
    CommercialResearch CommunicationForCustomerCare CommunicationManagement CounterMoneyLaundering
    Counterterrorism CustomerCare CustomerClaimsManagement CustomerManagement CustomerOrderManagement
    CustomerRelationshipManagement CustomerSolvencyMonitoring DataAltruism DeliveryOfGoods DirectMarketing
    DisputeManagement EnforceAccessControl EnforceSecurity EstablishContractualAgreement
    FraudPreventionAndDetection FulfilmentOfContractualObligation FulfilmentOfObligation
    HumanResourceManagement IdentityAuthentication IdentityVerification ImproveExistingProductsAndServices
    ImproveHealthcare ImproveInternalCRMProcesses ImprovePublicServices ImproveTransportMobility
    IncreaseServiceRobustness InternalResourceOptimisation LegalCompliance MaintainFraudDatabase Marketing
    MemberPartnerManagement MisusePreventionAndDetection NonCommercialPurpose NonCommercialResearch
    OptimisationForConsumer OptimisationForController OptimiseUserInterface OrganisationComplianceManagement
    OrganisationGovernance OrganisationRiskManagement PaymentManagement Personalisation
    PersonalisedAdvertising PersonalisedBenefits PersonnelBehaviourMonitoring PersonnelHiring
    PersonnelManagement PersonnelMonitoring PersonnelOffboarding PersonnelOnboarding PersonnelPayment
    PersonnelPerformanceEvaluation PersonnelPerformanceManagement PersonnelPerformanceMonitoring
    PersonnelPerformancePrediction PersonnelPromotionManagement PersonnelTerminationManagement
    PersonnelWorkloadManagement PoliticalCampaign ProtectionOfIPR ProtectionOfNationalSecurity
    ProtectionOfPublicSecurity ProvideEventRecommendations ProvideOfficialStatistics
    ProvidePersonalisedRecommendations ProvideProductRecommendations PublicBenefit PublicPolicyMaking
    PublicRelations RecordManagement RecruitmentAdvertising RecruitmentApplicantBackgroundCheck
    RecruitmentApplicantCriminalBackgroundCheck RecruitmentApplicantInformationAuthentication
    RecruitmentApplicantSelection RecruitmentApplicationAnalysis RecruitmentApplicationManagement
    RecruitmentApplicationScreening RecruitmentInterviewAnalysis RecruitmentInterviewAssessment
    RecruitmentInterviewManagement RecruitmentInterviewScheduling RecruitmentManagement
    RecruitmentTargetedAdvertising RepairImpairments RequestedServiceProvision ResearchAndDevelopment
    RightsFulfilment ScientificResearch SearchFunctionalities SellDataToThirdParties SellInsightsFromData
    SellProducts SellProductsToDataSubject ServiceAccessDetermination ServiceManagement ServiceMonitoring
    ServiceOptimisation ServicePersonalisation ServiceProvision ServiceRegistration ServiceUsageAnalytics
    SocialMediaMarketing TargetedAdvertising TechnicalServiceProvision UserInterfacePersonalisation
    VendorManagement VendorPayment VendorRecordsManagement VendorSelectionAssessment Verification
    """.split()
)
#: What stands under `Marketing` in it, and under `Personalisation`: by GDPR article 21 a person may always
#: object to direct marketing, and to the profiling that belongs to it.
MARKETING: Final = frozenset(
    """
    Advertising DirectMarketing Marketing PersonalisedAdvertising PoliticalCampaign PublicRelations
    RecruitmentAdvertising RecruitmentTargetedAdvertising SocialMediaMarketing TargetedAdvertising
    Personalisation PersonalisedBenefits ProvideEventRecommendations ProvidePersonalisedRecommendations
    ProvideProductRecommendations ServicePersonalisation UserInterfacePersonalisation
    """.split()
)
assert MARKETING <= PURPOSES
