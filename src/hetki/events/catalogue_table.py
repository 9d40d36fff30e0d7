"""The shipped catalogue as a table that people read: `Event Name: field field:type field!`.

Types: `:n` number, `:i` integer, `:b` boolean, `:t` time, `:l` list, `:o` object; none means text.
`!` marks personal data beyond the identifiers: what describes somebody, what people write, and what singles
out one order, page or conversation. All else but lists and objects is free: it may be shown to anybody.
A word `@group` stands for the fields of that group.
Sources: Segment's specs for identity and pages, commerce, coupons, wishlists and sharing, mobile,
  e-mail,
live chat and B2B SaaS, with Segment's field names; then Hetki's own events where Segment has none.
"""

from __future__ import annotations

TABLE = """
@product: product_id sku category name brand variant price:n quantity:n coupon position:n url! image_url
@money: revenue:n shipping:n tax:n discount:n coupon currency
@promotion: promotion_id creative name position
@payment: checkout_id! order_id! step:n shipping_method payment_method
@version: version build
@email: email_id! email_subject! campaign_id campaign_name
@chat: conversation_id! conversation_duration:n agent_id! agent_name! agent_username! message_id!
  message_body!

# Who the customer is, and what was seen
Customer Identified: email! phone! name! first_name! last_name! birthday:t! gender! address:o!
  age:i! avatar! username! title! company:o! created_at:t! plan language timezone website!
  email_verified:b phone_verified:b
Customer Aliased: previous_id!
Account Joined: group_id! name! industry employees:i plan website! email! phone! address:o
Page Viewed: name category path! referrer! search! title! url! keywords:l
Screen Viewed: name category

# Commerce: browsing
Products Searched: query! n_results:i
Product List Viewed: list_id category products:l
Product List Filtered: list_id category filters:l sorts:l products:l
Promotion Viewed: @promotion
Promotion Clicked: @promotion

# Commerce: products, cart and checkout
Product Clicked: @product
Product Viewed: @product currency value:n
Product Added: @product cart_id!
Product Removed: @product cart_id!
Cart Viewed: cart_id! products:l
Checkout Started: order_id! affiliation value:n @money products:l
Checkout Step Viewed: @payment
Checkout Step Completed: @payment
Payment Info Entered: @payment
Order Completed: checkout_id! order_id! affiliation subtotal:n total:n @money products:l
Order Updated: order_id! affiliation total:n @money products:l
Order Refunded: order_id! total:n currency products:l
Order Cancelled: order_id! affiliation total:n @money products:l

# Commerce: coupons, wishlists, sharing, reviews
Coupon Entered: order_id! cart_id! coupon_id
Coupon Applied: order_id! cart_id! coupon_id coupon_name discount:n
Coupon Denied: order_id! cart_id! coupon_id coupon_name reason
Coupon Removed: order_id! cart_id! coupon_id coupon_name discount:n
Product Added to Wishlist: @product wishlist_id! wishlist_name!
Product Removed from Wishlist: @product wishlist_id! wishlist_name!
Wishlist Product Added to Cart: @product wishlist_id! wishlist_name! cart_id!
Product Shared: share_via share_message! recipient! @product
Cart Shared: share_via share_message! recipient! cart_id! products:l
Product Reviewed: product_id review_id! review_body! rating emotion

# Mobile
Application Installed: @version
Application Opened: from_background:b referring_application! url! @version
Application Updated: previous_version previous_build @version
Application Backgrounded:
Application Crashed:
Application Uninstalled:
Install Attributed: provider campaign:o
Push Notification Received: campaign:o
Push Notification Tapped: action campaign:o
Push Notification Bounced: action campaign:o
Deep Link Clicked: provider url!
Deep Link Opened: provider url!

# E-mail
Email Delivered: @email
Email Opened: @email
Email Link Clicked: @email link_id link_url!
Email Bounced: @email
Email Marked as Spam: @email
Unsubscribed: @email list_id list_name

# Live chat
Live Chat Conversation Started: @chat
Live Chat Message Sent: @chat emotion
Live Chat Message Received: @chat emotion
Live Chat Conversation Ended: @chat

# B2B SaaS
Account Created: account_name!
Account Deleted: account_name!
Account Added User: role
Account Removed User: role
Signed Up: type first_name! last_name! email! phone! username! title!
Signed In: username!
Signed Out: username!
Invite Sent: invitee_email! invitee_first_name! invitee_last_name! invitee_role
Trial Started: trial_start_date:t trial_end_date:t trial_plan_name
Trial Ended: trial_start_date:t trial_end_date:t trial_plan_name

# Consent and our own messages
Consent Granted: purpose notice_version until:t method consent_type categories:l
Consent Refused: purpose notice_version until:t method
Consent Withdrawn: purpose notice_version until:t method
Objection Raised: purpose method reason! said_by!
Processing Restricted: method reason! said_by!
Restriction Lifted: reason! said_by!
Message Sent: decision_id! action moment
Message Failed: decision_id! action moment reason

# Help and contact
Help Searched: query! n_results:i order_id! topic
Help Viewed: article_id topic helpful:b
Order Tracked: order_id!
Chat Started: order_id! topic
Chat Ended: order_id! topic solved:b
Contact Started: contact_id! topic order_id! reason!
Contact Ended: contact_id! topic order_id! solved:b n_waiting_s:i n_handling_s:i
Callback Requested: contact_id! topic order_id! callback_at:t!
Complaint Opened: complaint_id! order_id! topic emotion
Complaint Solved: complaint_id! order_id! topic
Survey Sent: survey_id order_id!
Survey Answered: survey_id order_id! nps:i csat:i ces:i text! emotion
Review Posted: review_id! order_id! rating:n text! emotion
Message Received: message_id! order_id! topic text! emotion

# Delivery, visits and loyalty
Delivery Promised: order_id! promised_at:t!
Delivery Delayed: order_id! n_minutes:i promised_at:t! reason
Delivery Failed: order_id! reason
Order Delivered: order_id! n_minutes_late:i delivered_at:t!
Return Requested: order_id! reason! products:l
Store Visited: store_id
Reservation Made: reservation_id! store_id n_guests:i reserved_at:t!
Reservation Cancelled: reservation_id! store_id
Staffing Reported: pool n_present:n n_planned:n
Voucher Sent: voucher_id! order_id! amount:n currency
Voucher Redeemed: voucher_id! order_id! amount:n currency
"""
