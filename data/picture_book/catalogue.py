"""Which pictures show what: hand-checked tables, looked at on contact sheets (`pictures.py --sheets`).

openclipart says what a drawing shows in its folder and in its file's name, in English, Italian or French: DRAWINGS has,
for each class, the folders and words, and EXCLUDED what they catch wrongly. ICONS has the names of icons; a name counts
in every one of ICON_SETS that has it.
"""

# class -> (folders, words in file names)
DRAWINGS = {
    "dog": (("animals/mammals/dogs/",), "dog cane cani puppy chien dogs cagnolino beagle"),
    "cat": (("animals/mammals/housecats/",), "cat gatto gatti gattina kitten chat kitty"),
    "fish": (("animals/fish/",), "fish pesce pescetto shark goldfish bofish poisson"),
    "bird": (("animals/birds/",), "bird uccello duck owl gufo penguin tux eagle dove papera pennuto gabbiano hen "
             "rooster "
             "gallo struzzo parrot seagull pinguino oiseau"),
    "horse": (("animals/mammals/horses/",), "horse cavallo cavalli pony"),
    "bear": (("animals/mammals/bears/",), "bear orso teddy teddybear panda"),
    "car": (("transportation/vehicles/hummers/",), "car auto hummer chevrolet cars redcar dodge toyota skoda "
             "blazer taxi "
            "jeep voiture"),
    "boat": ((), "boat barca sailboat ship trawler nave veliero yacht canoe bateau barchetta"),
    "plane": ((), "plane aircraft aereo jet airliner aeroplane"),
    "tree": (("plants/trees/",), "tree albero trees palm palmtree arbre alberi pino abete evergreen oak"),
    "flower": (("plants/flowers/",), "flower fiore fiori flowers rose tulip tulips daisy rosa sunflower daffodil "
             "fleur "
               "girasole margherita lily"),
    "house": (("buildings/homes/",), "house home casa houses cottage igloo barn fattoria maison hut"),
    "apple": ((), "apple mela mele apples applf pomme"),
    "cake": ((), "cake torta gateau birthday muffin"),
    "hat": (("people/clothing/hats/",), "hat cappello"),
    "book": (("education/books/",), "book libro books libri bible ksiega notebook diary dictionary"),
    "clock": (("signs_and_symbols/clocks/",), "clock orologio watch sveglia"),
    "phone": (("office/telephone/",), "phone telephone telefono mobile cellphone cell"),
    "ball": ((), "ball palla ballon beachball basketball baseball football handball soccer"),
    "heart": (("recreation/holiday/valentines/",), "heart cuore hearts cuori valentine"),
}  # fmt: skip

# class -> (why, file names without .png)
EXCLUDED = {
    "dog": (("food, a bowl, no-dogs signs, wolves, several animals"),
            "hot_dog_bw corn_dog hot_dog_juliane_krug_r corn_dog_bw hot_dog aiga_no_dogs_ aiga_no_dogs1 "
            "chodovian_39_s_dog_by_m_01 cani_e_gatti_cat_and_do_01"),
    "cat": ("a bowl, tools, big cats, several animals, a chat icon",
            "scodella_gatto_architett_01 set_gatti unit_blocks_lion_kimbro_01 cani_e_gatti_cat_and_do_01 "
            "gatto_nero_architetto_fr_01 cat_scrathing_post_benji_01 chat_icon_01"),
    "fish": ("dolphins, whales, a seahorse, crawfish, a grenade, squids, a landscape",
             "dolphin_enrique_meza_c_02 seahorse kallisti-grenade_1_nurbl_01 bluewhale-md dolphin_01 "
             "orca_matthew_gates_r "
             "amibe_renardjb_on_free.f_01 dolphin amibe_renardjb_on_free.f_02 paesaggio_marino_archite_01 "
             "dolphin_enrique_meza_c_01 "
            "crawfish1_bw_ganson crawfish1_ganson crawfish2_bw_ganson crawfish2_ganson"),
    "bird": ("flocks, scenes, wings, a bat, mascots, a roast, broken links",
             "rubber_ducks_ganson the_incredible_tux_giuli_01 baby-tux_alex_kuehne_01 stormo_di_uccelli_archit_01 "
             "wing_mitchell_johnson_si_ baby_tux_rory_mccann_01 cigno_di_notte_nella_pa_01 tux_didier_fabert_01 "
             "duck_yellow_ii_kurt_cagl_ manager_mimooh_01 contour_bat mirjam_meijer_mirjam_mei_01 "
             "cigni_bianchi_e_neri_arc_01 turkey_on_platter_01 duck_yellow_kurt_cagle_ acquila_architetto_franc_04"),
    "horse": ("a chess piece, a road sign, an oil pump", "chesspieces-knight horse nodding_donkey_kevin_cow_01"),
    "bear": ("mostly snow", "sleeping_bear_under_sta_01 sleeping_bear_under_sta_02 "
            "sleeping_bear_under_sta_03"),
    "car": ("blueprints, trucks, seen from above, several cars, a sign",
            "shelby_cobra_blueprint_i_01 small_truck_steffen_gluc_01 truck_jarno_vasamaa1 truck_jarno_vasamaa_ "
            "bmw_z_from_top_aubanel_ old_truck_indana_model__01 big_truck_01 autos_01 shelby_cobra_car_bluepr_ "
            "car_0_symbol_10cm_bwh car_1_symbol_10cm_bwh aiga_car_rental_ aiga_car_rental1"),
    "boat": ("in a bottle", "the_mad_little_ship_core_01"),
    "plane": ("paper, a shuttle's plan, a trail",
              "toy_paper_plane_01 soviet_shuttle_mo_01 departing_plane_01"),
    "tree": ("wreaths, a fern, leaves, tools, balls, a landscape, people called Olivier, a map symbol",
             "wreath_of_evergreen_with_red_berries_01 evergreen_wreath_with_large_holly_01 fern_mo_01 tree_01 "
             "bypasspruner_benji_park_01 christmas_balls_mo_01 bowsaw_benji_park_01 palm_0_symbol_1m_bwh "
             "fall_scene_in_a_circle_a_01 fall_coloured_leaf_geral_01 fall_coloured_leaf_geral_02"),
    "flower": ("a painting, a dress, bottles, too pale to see, a vase, a tree, a cactus, a map symbol",
               "van_gogh_s_sun_flower_en_01 vestito_rosa flower-pot_01 flower-pot_02 magnolia_white_patricia__01 "
               "dream_flower_janet_theob_01 mazzo_di_fiori_architett_01 cartoon_tree_01 "
               "flower_bed_0_symbol_1m_bwh cactus_linda_kim_01"),
    "house": ("a castle, blocks of flats, a lighthouse, landscapes, a folder, map symbols",
              "pinkhome3 lowtec_house_christoph_b_01 casa_plurifamigliare_arc_01 lighthouse_matthew_gates_ "
              "abitazione_villa_con_gi_01 home8 chalet_di_montagna_arch_01 houses_jon_phillips_01 big_house_01 "
              "gnome-fs-home house_0_symbol_1m_bwh ell_house_0_symbol_1m_bwh barn_0_symbol_1m_bwh"),
    "apple": ("slices, a core, juice, pies, a slate, a label",
              "slate-apple_benji_park_01 apple_wedge apple_core_01 apple_wedge_bw apple_mateya_01 "
              "candied_apples_ganson apple_juice_box apple_juice_box_bw pie_apple pie_apple_bw"),
    "cake": ("muffins, a label, a toast",
             "muffin2_bw muffin3_bw muffin_3 muffin2 muffin1 muffin1_bw cake_mateya_01 egg_muffin "
             "cake_and_candle_anton_fr_01"),
    "hat": ("a helmet, a portrait, crowns",
            "football_helmet_gerald_g_01 jacob_leisler_mo_01 bejewelled_crown_with_t_01 simple_crown_with_one_r_01 "
            "simple_crown_with_three_01"),
    "book": ("newspapers, a laptop, a squirrel, a help button", "newspaper_nicu_buculei_01 "
             "help-books-aj.svg_aj_ash_01 "
            "notebook1_sergio_luiz_ar_02 cartoon_squirrel_mike_sm1 newspaper_aubanel_monnie_01"),
    "clock": ("a sign, one hand, sandglasses",
              "watch_for_bicycles_sign_01 minute_hand_mitchell_joh_ sandglass_vermin_ "
            "sand_glass_frederic_mose_01"),
    "phone": ("furniture, a number", "mobile_architetto_france_01 numero_verde_angelo_gelm_01"),
    "ball": ("bats, gloves, caps, several balls, players, fire, balloons, an empty drawing",
             "fire-ball_benji_park_01 heart-ballons_benji_park_01 golf_flag_ball_bram_gron_ baseball_glove_bw_ganson "
             "baseball_bat_bw_ganson baseball_bat_ganson football_pitch__andy_bur_01 football_helmet_gerald_g_01 "
             "baseball_glove_ganson 9ball_form_jarno_vasama 8ball_form_jarno_vasama christmas_balls_mo_01 "
             "a_boy_plays_soccer_01 baseball_cap_bw_ganson baseball_cap_ganson"),
    "heart": ("patterns, balloons, an arrow",
              "heart_cluster_jon_philli_01 heart_tiles_jon_phillips_01 heart-ballons_benji_park_01 "
              "arrow-heart_benji_park_01"),
}  # fmt: skip

# Drawings of one thing by one hand that the perceptual hash tells apart; they stay on one side of the split.
SERIES = (
    r"^clock\d+", r"^clock_michael", r"^hummer", r"^chevrolet|^_chevrolet|^1989_chev", r"teddy_bear",
    r"^tux|_tux", r"^cone", r"^home\d+", r"^pinkhome", r"^sailboat_illustration", r"^apple_(?:bitten|with_worm)",
)  # fmt: skip
# The same for icons of one set: cat faces differ in their mouths, many hearts and books in their colours.
ICON_SERIES = (
    r"(?:kissing|pouting|weary|grinning|smiling)-cat", r"^dog-s(?:ide|ervice)",
    r"^(?:blue|black|red|beating|growing|sparkling|broken|heart)-?(?:heart|with-ribbon|with-arrow|suit)",
    r"^(?:blue|green|orange|closed)-book",
)  # fmt: skip

# npm package -> licence; the names follow @iconify-json/.
ICON_SETS = {
    "fluent-emoji": "MIT", "fluent-emoji-flat": "MIT", "emojione": "CC-BY-4.0", "fxemoji": "Apache-2.0",
    "streamline-emojis": "CC-BY-4.0", "icon-park": "Apache-2.0", "flat-color-icons": "MIT", "game-icons": "CC-BY-3.0",
    "mdi": "Apache-2.0", "ph": "MIT", "tabler": "MIT",
}  # fmt: skip
ICONS = {
    "dog": "dog dog-face guide-dog poodle service-dog dog-zodiac basset-hound-head hound jumping-dog sitting-dog "
           "sniffing-dog dog-side dog-service dog-fill",
    "cat": "cat cat-face black-cat cat-fill grinning-cat kissing-cat-face weary-cat pouting-cat "
           "smiling-cat-face-with-heart-eyes",
    "fish": "fish tropical-fish blowfish shark fish-one angler-fish fish-fill fish-simple-fill double-fish "
            "fish-corpse",
    "bird": "bird dove duck eagle owl penguin parrot rooster swan flamingo bird-1 bird-2 penguin-1 hummingbird raven "
            "barn-owl plastic-duck kiwi-bird bird-fill",
    "horse": "horse horse-face carousel-horse horse-head horse-zodiac horse-variant horse-variant-fast horse-fill "
             "rocking-horse horse-toy",
    "bear": "bear polar-bear teddy-bear bear-face panda panda-face bear-head",
    "car": "automobile oncoming-automobile oncoming-taxi police-car racing-car taxi car jeep race-car f1-car "
           "car-side "
           "car-hatchback car-estate car-sports car-fill car-profile-fill taxi-fill jeep-fill car-suv city-car",
    "boat": "canoe ferry motor-boat passenger-ship sailboat ship speedboat sailboat-one paper-ship boat-fishing "
            "caravel "
            "cargo-ship fishing-boat paper-boat small-fishing-sailboat speed-boat wood-canoe shooner-sailboat "
            "sail-boat "
            "boat-fill sailboat-fill sailboat-2 drakkar galleon trireme",
    "plane": "airplane airplane-arrival airplane-departure small-airplane commercial-airplane jet-fighter "
             "airplane-takeoff airplane-landing airplane-fill airplane-in-flight-fill airplane-tilt-fill biplane "
             "plane "
             "plane-tilt plane-departure",
    "tree": "christmas-tree deciduous-tree evergreen-tree palm-tree evergreen tree tree-one tree-two coconut-tree "
            "palm "
            "pine-tree bonsai-tree oak fruit-tree willow-tree tree-fill tree-evergreen-fill",
    "flower": "blossom hibiscus rose sunflower tulip white-flower sunflower-1 sunflower-2 lotus daisy flower-pot "
              "flower-tulip flower-poppy flower flower-fill flower-tulip-fill spoted-flower twirly-flower",
    "house": "house house-with-garden derelict-house hut home family-house green-house home-two house-fill "
             "house-line-fill building-cottage home-variant home-modern",
    "apple": "green-apple red-apple shiny-apple food-apple apple",
    "cake": "birthday-cake birthday-cake-1 birthday-cake-2 birthday-cake-3 shortcake cupcake cake cake-one cake-two "
            "cake-three cake-four cake-five cake-layered cake-variant cake-fill cake-slice cake-roll",
    "hat": "top-hat womans-hat billed-cap graduation-cap magic-hat straw-hat sun-hat woolen-hat sorcerer-hat "
           "baseball-cap "
           "hat hat-fedora outback-hat pilgrim-hat pirate-hat pointy-hat robin-hood-hat santa-hat western-hat "
           "winter-hat "
           "cowboy-hat-fill chef-hat party-hat",
    "book": "blue-book books closed-book green-book notebook open-book orange-book book book-one book-open book-pile "
            "white-book spell-book notebook-one book-fill book-open-fill books-fill notebook-with-decorative-cover",
    "clock": "alarm-clock mantelpiece-clock timer-clock watch big-clock cuckoo-clock pocket-watch clock alarm "
             "alarm-fill "
             "clock-fill watch-one watch-fill one-oclock seven-thirty",
    "phone": "mobile-phone telephone telephone-receiver cellphone cell-phone phone rotary-phone smartphone "
             "phone-telephone phone-one phone-fill device-mobile-fill device-landline-phone phone-classic "
             "candlestick-phone "
             "phone-android",
    "ball": "baseball basketball soccer-ball volleyball tennis pool-8-ball basketball-ball beach-ball tennis-ball "
            "volleyball-ball soccer soccer-one football eight-ball baseball-fill basketball-fill bowling-ball-fill "
            "soccer-ball-fill tennis-ball-fill volleyball-fill beach-ball-fill ball-basketball ball-volleyball "
            "ball-football",
    "heart": "red-heart blue-heart growing-heart beating-heart broken-heart sparkling-heart heart-with-arrow "
             "heart-with-ribbon heart-suit heart heart-fill heart-broken shining-heart pierced-heart cards-heart "
             "heart-straight-fill black-heart heart-wings",
}  # fmt: skip
# Icons that show something else, or that hardly anyone would name so.
ICONS_EXCLUDED = frozenset(
    {
        "mdi:apple", "icon-park:apple", "icon-park:apple-one",  # a company's sign
        "game-icons:palm", "icon-park:palm",  # hands
        "fluent-emoji:tennis", "fluent-emoji-flat:tennis", "emojione:tennis", "icon-park:tennis",  # rackets
        "icon-park:football", "icon-park:alarm", "icon-park:heart-ballon",  # a player, a siren
        "mdi:football", "ph:football-fill",  # not round
    }
)  # fmt: skip
