//! Loads and stores that lie in two pages, of which a debugger may keep back the second or the first: the
//! page of its breakpoints.

use stepwell_guests::translation::EL0_ALIAS;

use crate::cases::{at_el0, at_el1, each};
use crate::{behind_loop_page, loop_start};

mod crossing {
    use crate::cases;
    cases! { CASES:
        // X3: a few bytes before the border.
        cross_load "ldr x10, [x3]"
        cross_load_word "ldr w10, [x3]"
        cross_load_half "ldrh w10, [x3]"
        cross_load_signed "ldrsw x10, [x3]"
        cross_load_pair "ldp x10, x11, [x3]"
        cross_load_post "mov x4, x3; ldr x10, [x4], #8; sub x11, x4, x3"
        cross_load_indexed "mov x4, #3; sub x5, x3, x4; ldr x10, [x5, x4]"
        cross_store "str x1, [x3]"
        cross_store_word "str w1, [x3]"
        cross_store_half "strh w1, [x3]"
        cross_store_pair "stp x1, x3, [x3]"
        cross_store_pre "sub x4, x3, #8; str x1, [x4, #8]!; sub x10, x4, x3"
    }
    pub(super) const TABLE: &[crate::cases::Case] = CASES;
}

const STORED: u64 = 0xa1a2_a3a4_a5a6_a7a8;

/// With translation on.
pub fn look_translated() {
    for border in [loop_start as *const () as u64, behind_loop_page as *const () as u64] {
        // Two words on either side.
        let words = border - 16;
        for distance in [1, 3, 4, 7] {
            let given = |alias| [words + alias, STORED, 0, border + alias - distance];
            let (words, table) = (words as *mut u64, crossing::TABLE);
            each(1, words, table, |function| at_el1(function, given(0)));
            each(0, words, table, |function| at_el0(function, given(EL0_ALIAS), EL0_ALIAS));
        }
    }
}
